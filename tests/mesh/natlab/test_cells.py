"""Two nodes through pairs of real NATs: direct or punched wherever theory allows, else relayed, and always through."""

import re
from pathlib import Path

import pytest
from natlab import HOST, WAN, NatLab, WorkerFailed
from natstage import Cell, Stage, note

pytestmark = pytest.mark.natlab

CELLS = [
    Cell("nonat", "nonat", ("direct",)),
    Cell("open", "open", ("direct",)),
    Cell("portres", "open", ("direct",)),
    Cell("portres", "portres", ("punched",)),
    Cell("open", "symmetric", ("punched",)),
    Cell("symmetric", "open", ("direct",)),
    Cell("portres", "portres", ("punched",), double=True),
    Cell("symmetric", "symmetric", ("direct", "punched"), ipv6=True),
]
NO_WAY = [
    Cell("portres", "symmetric", ("relayed",)),
    Cell("symmetric", "symmetric", ("relayed",)),
    Cell("noudp", "portres", ("relayed",)),
    Cell("noudp", "noudp", ("relayed",)),
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_link_is_as_direct_as_theory_allows(stage: Stage, cell: Cell) -> None:
    other, seen = stage.link(cell)
    assert seen["path"] in cell.paths, seen
    assert stage.a.ask("echo", peer=other, size=300_000) < 30


@pytest.mark.parametrize("cell", NO_WAY, ids=lambda cell: cell.name)
def test_where_no_way_leads_through_the_relay_carries(stage: Stage, cell: Cell) -> None:
    other, seen = stage.link(cell, wait_s=1.0)
    assert seen["path"] == "relayed", seen
    before = sum(worker.ask("relay_stats")["bytes"] for worker in stage.public.values())
    seconds = stage.a.ask("echo", peer=other, size=1_000_000)
    note({"cell": cell.name, "relayed_mb_per_s": round(2 / seconds, 1)})
    after = sum(worker.ask("relay_stats")["bytes"] for worker in stage.public.values())
    assert after - before > 2_000_000


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("nonat", "none"), ("portres", "cone"), ("open", "cone"), ("symmetric", "symmetric"), ("noudp", "blocked")],
)
def test_two_observers_tell_the_kind_of_nat(stage: Stage, kind: str, verdict: str) -> None:
    stage.nats(Cell(kind, kind, ()))  # type: ignore[arg-type]
    for side, found in zip("ab", stage.nodes(), strict=True):
        assert found["kind"] == verdict, found["steps"]
        outside = [hint.rsplit(":", 1)[0] for hint in found["external"]]
        assert outside == {"none": [HOST[side]], "cone": [WAN[side]]}.get(verdict, [])


@pytest.mark.parametrize(("a", "b"), [("portres", "portres"), ("open", "symmetric")])
def test_a_common_peer_introduces_two_without_any_relay(stage: Stage, a: str, b: str) -> None:
    stage.nats(Cell(a, b, ()))  # type: ignore[arg-type]
    other = stage.nodes(relays=False, observers=1)[1]["address"][0]
    met = stage.a.ask("meet", common=stage.observers[0][0], wanted=other)
    note({"cell": f"meet-{a}-{b}", **met})
    assert met["path"] == "punched"
    stage.a.ask("echo", peer=other)


def test_an_introduction_that_theory_forbids_fails_and_says_what_was_tried(stage: Stage) -> None:
    stage.nats(Cell("portres", "symmetric", ()))
    other = stage.nodes(relays=False, observers=1)[1]["address"][0]
    with pytest.raises(WorkerFailed, match=rf"udp {WAN['b']}:\d+: no answer"):
        stage.a.ask("meet", common=stage.observers[0][0], wanted=other)


@pytest.mark.parametrize("b", ["open", "portres"])
def test_a_nat_that_forgets_its_mappings_does_not_end_the_link(stage: Stage, lab: NatLab, b: str) -> None:
    """Behind `portres` the new port is a stranger until iroh gives the old path up: up to 15 s, then the relay."""
    other, _ = stage.link(Cell("portres", b, ()))  # type: ignore[arg-type]
    talking = stage.a.begin("chat", peer=other, seconds=3)
    stage.a.ask("echo", peer=other)
    lab.translate("ra", "portres", HOST["a"], ports="50000-59999")
    talk = stage.a.result(talking)
    note({"cell": f"rebinding-portres-{b}", **talk})
    assert (talk["failed"], talk["links"]) == (0, 1), talk
    assert stage.a.ask("echo", peer=other) < 5
    mappings = lab.inside("ra", "conntrack", "-L", "-p", "udp")
    assert re.search(rf"src={WAN['b']} dst={WAN['a']} sport=\d+ dport=5\d{{4}}\b", mappings), mappings


@pytest.mark.parametrize("protocol", ["natpmp", "upnp"])
def test_a_router_that_maps_a_port_makes_the_worst_pair_direct(
    stage: Stage, lab: NatLab, mapping_daemon: Path, protocol: str
) -> None:
    stage.nats(Cell("symmetric", "symmetric", ()))
    with lab.mapping_daemon(mapping_daemon, protocol):
        stage.nodes()
        mapped = stage.b.ask("map_port")
        assert mapped["address"][1][0][0].startswith(f"{WAN['b']}:"), mapped
        assert mapped["by"] == {"natpmp": ["PCP", "NAT-PMP"], "upnp": ["UPnP"]}[protocol], mapped
        stage.a.ask("learn", address=mapped["address"])
        assert stage.a.ask("connect", peer=mapped["address"][0])["path"] == "direct"
        stage.a.ask("echo", peer=mapped["address"][0])


def test_a_relay_that_dies_in_mid_stream_is_replaced_by_the_other(stage: Stage) -> None:
    other, seen = stage.link(Cell("symmetric", "symmetric", ()), wait_s=0.1)
    assert seen["path"] == "relayed"
    used = stage.a.ask("info", peer=other)["remote"]
    name = list(stage.public)[stage.relays.index(used)]
    talking = stage.a.begin("chat", peer=other, seconds=6)
    stage.a.ask("echo", peer=other)
    stage.public[name].ask("kill_relay")
    talk = stage.a.result(talking)
    note({"cell": "relay-killed", **talk})
    failed, links = talk["failed"], talk["links"]
    if stage.a.ask("info", peer=other)["remote"] == used:  # a busy machine: nobody noticed yet
        talk = stage.a.ask("chat", peer=other, seconds=15)
        failed, links = failed + talk["failed"], max(links, talk["links"])
    assert talk["path"] == "relayed"
    assert stage.a.ask("info", peer=other)["remote"] != used
    assert (failed, links) == (1, 2), talk  # the call in flight fails at once, the next goes through
    stage.public[name].ask("relay", host=used.split("//")[1].split(":")[0], port=3340)
