"""A model split over two processes on one machine: what the whole says, said without the peer seeing a token."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from served import served, until

pytestmark = pytest.mark.real

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan")


def test_a_split_model_says_what_the_whole_one_says(default_gguf: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (home / "kernels").mkdir(exist_ok=True)
    (tmp_path / "b" / "kernels").symlink_to(home / "kernels")
    with served(Path("none"), home, "--share", "--share-layers", f"{default_gguf}:8-29", *LOCAL) as peer:
        ticket = next(line.split()[-1] for line in peer.printed().splitlines() if "shoal join shoal1" in line)
        split = ("--split", f"{default_gguf}:8+1", "--route", "local")
        with served(default_gguf, tmp_path / "b", "--ticket", ticket, *split, *LOCAL) as mine:
            until(lambda: httpx.get(f"{mine.url}/v1/mesh").json()["peers"])
            said = {}
            for model in (mine.model, f"private:{mine.model}"):
                answer = mine.client().chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "Name three rivers."}],
                    temperature=0.8,
                    seed=5,
                    max_tokens=40,
                )
                said[model] = answer.choices[0].message.content
            assert said[mine.model]
            assert said[f"private:{mine.model}"] == said[mine.model]
            assert f"private:{mine.model}" in [card.id for card in mine.client().models.list()]
            assert [card.id for card in peer.client().models.list()] == [], "a split model is its owner's alone"
