"""A chat between two homes through every pair of NATs: one has the model, the other asks, both have a ticket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from natchat import ChatNode, node, ready, until
from natlab import NatLab
from natstage import Cell, Stage, note

from shoal.models.tiny_file import write_tiny

pytestmark = pytest.mark.natlab

CELLS = [  # whoever is met through a relay before observers told its address counts as punched, however open it is
    Cell("open", "open", ("direct", "punched")),
    Cell("portres", "open", ("direct", "punched")),
    Cell("portres", "portres", ("punched",)),
    Cell("open", "symmetric", ("direct", "punched")),
    Cell("portres", "portres", ("punched",), double=True),
    Cell("symmetric", "symmetric", ("direct", "punched"), ipv6=True),
    Cell("symmetric", "symmetric", ("relayed",)),
    Cell("noudp", "portres", ("relayed",)),
    Cell("noudp", "noudp", ("relayed",)),
]
QUIET = ("--threads", "1", "--port", "0", "--log-format", "off")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes, with the compiled kernels in one place; and the model."""
    made = tmp_path_factory.mktemp("chat")
    (made / "kernels").mkdir()
    write_tiny(made / "tiny.gguf")
    for name in ("pub", "a", "b"):
        (made / name).mkdir()
        (made / name / "kernels").symlink_to(made / "kernels")
    return made


@pytest.fixture(scope="session")
def public(stage: Stage, folder: Path) -> Iterator[ChatNode]:
    """A node anybody can reach, without a model; its ticket names the relays."""
    relays = [flag for url in stage.relays for flag in ("--relay", url)]
    arguments = ("up", "--share", "--model", "none", "--mesh-port", "4100", *relays, *QUIET)
    with node(stage.lab, "pub", folder / "pub", *arguments) as found:
        yield ready(found)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_chat_gets_through(stage: Stage, lab: NatLab, public: ChatNode, folder: Path, cell: Cell) -> None:
    stage.nats(cell)
    ticket = public.ticket()
    with (
        node(lab, "a", folder / "a", "join", ticket, "--model", str(folder / "tiny.gguf"), *QUIET) as serving,
        node(lab, "b", folder / "b", "join", ticket, "--model", "none", *QUIET) as asking,
    ):
        a, b = ready(serving), ready(asking)
        other = a.get("/v1/mesh")["id"]
        until(lambda: b.peer(other).get("models"), 15, lambda: b.get("/v1/mesh"))
        assert b.chat("tiny", "hello") == a.chat("tiny", "hello")
        decided = b.get("/v1/mesh")["decisions"][-1]
        assert (decided["provider"], decided["outcome"]) == (other, "answered")
        until(lambda: b.peer(other).get("path") in cell.paths, 10, lambda: b.peer(other))
        assert b.chat("tiny", "once more") == a.chat("tiny", "once more")
        seen = b.peer(other)
        note({"chat": cell.name, "path": seen["path"], "carrier": seen["carrier"], "rtt_s": seen["rtt_s"]})
        assert seen["path"] in cell.paths
        assert f"{seen['path']} {seen['carrier']}" in b.shoal("peers")


def test_the_doctor_sees_the_network_as_it_is(stage: Stage, lab: NatLab, public: ChatNode, folder: Path) -> None:
    """UDP blocked: peers are reached through the relay alone, and it says so."""
    stage.nats(Cell("noudp", "portres", ()))
    home = f"SHOAL_HOME={folder}"
    command = ("env", home, sys.executable, "-m", "shoal", "doctor", "--net", "--json", "--ticket", public.ticket())
    blocked, free = (
        {check["name"]: check for check in json.loads(lab.inside(host, *command))["checks"]} for host in ("a", "b")
    )
    assert (blocked["UDP"]["status"], free["UDP"]["status"]) == ("warn", "ok")
    assert "firewall" in blocked["UDP"]["advice"]
    assert (blocked["clock"]["status"], free["clock"]["status"]) == ("ok", "ok")
    for url in stage.relays:
        assert blocked[f"relay {url}"]["status"] == "ok"
