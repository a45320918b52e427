"""Two nodes on one machine, as two people would run them: a ticket, and then either endpoint serves both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from served import Served, assert_idle, environment, served, until

from shoal.mesh.peer_id import PeerId
from shoal.trust.file import parse_file
from shoal.trust.inspect import inspect

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan")
QUESTION = "Once upon a time, in a small village by the sea,"
OPTIONS = {"prompt": QUESTION, "max_tokens": 100, "temperature": 0}
LONG = OPTIONS | {"max_tokens": 1500}
"""Seconds of work: whoever is to be killed in the middle of it still works when the signal comes."""


def shoal(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], env=environment(home), capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def homes(home: Path, tmp_path: Path) -> list[Path]:
    """Homes of three nodes that share compiled kernels."""
    found = [tmp_path / name for name in "abc"]
    for folder in found:
        folder.mkdir()
        (home / "kernels").mkdir(exist_ok=True)
        (folder / "kernels").symlink_to(home / "kernels")
    return found


def ticket_of(node: Served) -> str:
    found = re.search(r"shoal join (shoal1\S+)", node.printed())
    assert found is not None
    return found[1]


def peers_of(node: Served, state: str = "connected") -> list[dict[str, object]]:
    peers = httpx.get(f"{node.url}/v1/mesh").json()["peers"]
    return [peer for peer in peers if peer["state"] == state and peer["models"]]


def text_of(node: Served, model: str, **options: object) -> str:
    answer = node.client().completions.create(model=model, **{**OPTIONS, **options})  # type: ignore[call-overload]
    return str(answer.choices[0].text)


@contextmanager
def joined(one: Served, home: Path) -> Iterator[Served]:
    """A node without a model of its own, once it knows what `one` serves."""
    with served(Path("none"), home, "--ticket", ticket_of(one), *LOCAL) as node:
        until(lambda: peers_of(node))
        yield node


def assert_signed_by_both(node: Served, model: str, peer: str, folder: Path) -> None:
    """The asking node's receipt names the peer that made the answer, and holds the peer's own."""
    asked = {"model": model, "prompt": "Hi", "max_tokens": 40, "receipt": True}
    answer = node.post("/v1/completions", asked).json()
    seen = node.post("/v1/verify", answer["receipt"]).json()["receipts"][0]
    assert (seen["valid"], seen["problems"]) == (True, [])
    assert seen["parts"] == [
        f"choice 0: tokens 0 to {answer['usage']['completion_tokens'] - 1} by {peer}, with its own receipt"
    ]
    (signed,) = parse_file(json.dumps(answer).encode())
    assert signed.opening is not None
    (nested,) = signed.opening.nested
    assert str(PeerId(nested.receipt.node)) == peer
    assert nested.receipt.model.weights
    assert nested.opening is not None
    assert nested.opening.outputs[0].fingerprints
    (folder / "answer.json").write_text(json.dumps(answer))
    told = shoal(folder, "receipt", "verify", str(folder / "answer.json"))
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"by {peer}, with its own receipt" in told.stdout


def test_either_endpoint_serves_both(default_gguf: Path, homes: list[Path]) -> None:
    with served(default_gguf, homes[0], "--share", *LOCAL) as one:
        ticket = ticket_of(one)
        with served(Path("none"), homes[1], "--ticket", ticket, *LOCAL) as two:
            until(lambda: peers_of(two))
            assert [card.id for card in two.client().models.list()] == [one.model]
            assert text_of(two, one.model) == text_of(one, one.model)
            decision = httpx.get(f"{two.url}/v1/mesh").json()["decisions"][-1]
            assert (decision["outcome"], decision["num_tokens"]) == ("answered", 100)
            assert decision["provider"] == httpx.get(f"{one.url}/v1/mesh").json()["id"]

            usage = two.client().completions.create(model=one.model, prompt="Hi", max_tokens=2).usage
            assert usage is not None
            assert (usage.model_extra or {})["shoal"]["providers"] == [decision["provider"]]

            assert_signed_by_both(two, one.model, str(decision["provider"]), homes[1])

            table = shoal(homes[1], "peers", "--url", two.url)
            assert "connected" in table.stdout
            assert one.model in table.stdout
            peer = str(decision["provider"])
            pinged = shoal(homes[1], "ping", peer[:12], "--url", two.url)
            assert "direct over" in pinged.stdout
            assert "median" in pinged.stdout
            nobody = shoal(homes[1], "trace", "a" * 52, "--url", two.url)
            assert nobody.returncode == 1
            assert "has no address of it" in nobody.stdout
            text = httpx.get(f"{two.url}/metrics").text
            assert f'shoal:mesh_tokens_received_total{{peer="{peer}"}}' in text


def test_a_peer_killed_in_mid_answer_loses_no_word(default_gguf: Path, homes: list[Path]) -> None:
    with served(default_gguf, homes[0], "--share", *LOCAL) as one:
        ticket = ticket_of(one)
        with served(default_gguf, homes[1], "--ticket", ticket, "--share", *LOCAL) as two:
            expected = text_of(two, two.model, **LONG)
            with served(Path("none"), homes[2], "--ticket", ticket, *LOCAL) as node:
                until(lambda: len(peers_of(node)) == 2)
                found, victim = "", None
                wanted = {**LONG, "extra_body": {"receipt": True}}
                stream = node.client().completions.create(model=one.model, stream=True, **wanted)  # type: ignore[call-overload]
                for chunk in stream:
                    found += "".join(choice.text for choice in chunk.choices)
                    if len(found) > 60 and victim is None:
                        busy = [server for server in (one, two) if server.stats()["num_running"]]
                        victim = busy[0]
                        victim.process.kill()
                assert found == expected
                outcomes = [item["outcome"] for item in httpx.get(f"{node.url}/v1/mesh").json()["decisions"]]
                assert len(outcomes) == 2
                assert outcomes[0].startswith("failed")
                assert outcomes[1] == "answered"
                (signed,) = parse_file(json.dumps({"receipt": chunk.receipt}).encode())
                dead, alive = signed.receipt.parts
                assert (dead.first, dead.count, dead.receipt) == (0, alive.first, b"")
                assert alive.receipt
                assert inspect(signed).problems == ()


def test_leaving_a_stream_cancels_at_the_peer(default_gguf: Path, homes: list[Path]) -> None:
    with served(default_gguf, homes[0], "--share", *LOCAL) as one, joined(one, homes[1]) as two:
        options = OPTIONS | {"max_tokens": 4000}
        stream = two.client().completions.create(model=one.model, stream=True, **options)  # type: ignore[call-overload]
        next(iter(stream))
        stream.close()
        assert_idle(one)


def test_nothing_is_served_without_consent(default_gguf: Path, homes: list[Path]) -> None:
    """A member of the swarm that does not share, and a stranger with a ticket of another swarm."""
    with served(default_gguf, homes[0], "--share", *LOCAL) as one:
        ticket = ticket_of(one)
        with served(default_gguf, homes[1], "--ticket", ticket, *LOCAL) as private, joined(one, homes[2]) as node:
            views = httpx.get(f"{node.url}/v1/mesh").json()["peers"]
            mine = httpx.get(f"{private.url}/v1/mesh").json()["id"]
            assert [peer["models"] for peer in views if peer["id"] == mine] in ([], [[]])
        forged = shoal(homes[1], "join", ticket[:-4] + "aaaa", "--model", "none")
        assert forged.returncode == 2
        assert "ticket" in forged.stderr


def test_an_error_of_the_request_comes_back_as_one(default_gguf: Path, homes: list[Path]) -> None:
    with served(default_gguf, homes[0], "--share", *LOCAL) as one, joined(one, homes[1]) as two:
        with pytest.raises(openai.BadRequestError, match="tokens"):
            text_of(two, one.model, prompt="word " * 9000)
        with pytest.raises(openai.NotFoundError):
            text_of(two, "nothing")
