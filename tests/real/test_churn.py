"""Peers die one after another while answers stream; whoever asked notices nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, served, until

from shoal.models.tiny import TinyShape
from shoal.models.tiny_file import write_tiny

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan", "--threads", "1", "--log-format", "off")
SERVING = 4
VICTIMS = 3
ANSWERS = 20
TOKENS = 400


@pytest.fixture
def homes(home: Path, tmp_path: Path) -> Iterator[Path]:
    """One new home after the other, with the compiled kernels of all."""
    (home / "kernels").mkdir(exist_ok=True)

    def made() -> Iterator[Path]:
        for number in count():
            folder = tmp_path / f"home-{number}"
            folder.mkdir()
            (folder / "kernels").symlink_to(home / "kernels")
            yield folder

    return made()


def streamed(node: Served, number: int, text: list[str]) -> None:
    """Adds the answer's pieces to `text` while they come."""
    body = {"model": "tiny", "prompt": f"{number}", "seed": number, "temperature": 0.8, "max_tokens": TOKENS,
            "ignore_eos": True, "stream": True}  # fmt: skip
    with httpx.stream("POST", f"{node.url}/v1/completions", json=body, timeout=120) as response:
        for line in lines(response.iter_bytes()):
            if line.startswith(b"data: {"):
                event: dict[str, Any] = json.loads(line[6:])
                text.append("".join(choice["text"] for choice in event["choices"]))


def lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """httpx's own lines also end at U+2028 and its like, which JSON may hold."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole


def answers_known(node: Served) -> int:
    return sum(bool(peer["models"]) for peer in httpx.get(f"{node.url}/v1/mesh").json()["peers"])


def test_twenty_answers_outlive_three_of_four_peers(homes: Iterator[Path], tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    write_tiny(model, TinyShape(context_length=1024, num_layers=6))
    with ExitStack() as stack:
        first = stack.enter_context(served(model, next(homes), "--share", *LOCAL))
        ticket = first.printed().split("shoal join ")[1].split()[0]
        joining = ("--share", "--ticket", ticket, *LOCAL)
        others = [stack.enter_context(served(model, next(homes), *joining)) for _ in range(SERVING - 1)]
        asked = stack.enter_context(served(Path("none"), next(homes), *joining))
        until(lambda: answers_known(asked) == SERVING)

        expected: list[list[str]] = [[] for _ in range(ANSWERS)]
        for number in range(ANSWERS):
            streamed(first, number, expected[number])

        found: list[list[str]] = [[] for _ in range(ANSWERS)]
        threads = [threading.Thread(target=streamed, args=(asked, number, found[number])) for number in range(ANSWERS)]
        for thread in threads:
            thread.start()
        living = [first, *others]
        for _ in range(VICTIMS):
            victim = until(lambda: next((node for node in living if node.stats()["num_running"]), None))
            victim.process.kill()
            living.remove(victim)
        for thread in threads:
            thread.join(100)
        assert ["".join(text) for text in found] == ["".join(text) for text in expected]
        outcomes = httpx.get(f"{asked.url}/v1/mesh").json()["asked"]
        assert sum(number for name, number in outcomes.items() if name == "peer answered") == ANSWERS
        assert any(name.startswith("peer failed") for name in outcomes)
