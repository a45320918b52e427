"""Whatever is absorbed changes every later challenge; challenges are field elements and distinct indices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shoal.crypto.transcript import MODULUS, Transcript

Step = Callable[[Transcript], object]

STEPS: list[Step] = [
    lambda t: t.absorb("root", b"abc"),
    lambda t: t.absorb("root", b""),
    lambda t: t.absorb_int("rows", 7),
    lambda t: t.challenge("alpha"),
    lambda t: t.absorb_elements("row", np.arange(6, dtype=np.uint64).reshape(3, 2)),
    lambda t: t.absorb_pair("value", (1, MODULUS - 1)),
    lambda t: t.indices("columns", 3, 100),
]

OTHERS: list[list[Step]] = [
    [lambda t: t.absorb("root", b"abd"), lambda t: t.absorb("roots", b"abc"), lambda t: t.absorb("roo", b"tabc")],
    [lambda t: t.absorb("root", b"\0"), lambda t: t.absorb("r", b"")],
    [lambda t: t.absorb_int("rows", 8), lambda t: t.absorb_int("row", 7)],
    [lambda t: t.challenge("beta"), lambda t: t.challenges("alpha", 2)],
    [lambda t: t.absorb_elements("row", np.arange(1, 7, dtype=np.uint64).reshape(3, 2))],
    [lambda t: t.absorb_pair("value", (0, MODULUS - 1)), lambda t: t.absorb_pair("value", (1, MODULUS - 2))],
    [lambda t: t.indices("columns", 4, 100), lambda t: t.indices("column", 3, 100)],
]


def last_words(steps: list[Step], protocol: str = "test v1") -> list[tuple[int, int]]:
    transcript = Transcript(protocol)
    for step in steps:
        step(transcript)
    return [transcript.challenge("end"), transcript.challenge("end")]


def test_the_same_calls_give_the_same_challenges() -> None:
    assert last_words(STEPS) == last_words(STEPS)


def test_another_protocol_label_item_or_count_changes_all_later_challenges() -> None:
    seen = {*last_words(STEPS), *last_words(STEPS, "test v2")}
    changed = 2
    for at, others in enumerate(OTHERS):
        for other in [*others, lambda t: None]:
            seen |= {*last_words([*STEPS[:at], other, *STEPS[at + 1 :]])}
            changed += 1
    for at in range(len(STEPS) - 1):  # the order counts
        seen |= {*last_words([*STEPS[:at], STEPS[at + 1], STEPS[at], *STEPS[at + 2 :]])}
        changed += 1
    assert len(seen) == 2 * changed


def test_every_bit_of_an_item_counts() -> None:
    item = bytes(range(40))
    seen = set()
    for bit in range(8 * len(item)):
        flipped = bytearray(item)
        flipped[bit // 8] ^= 1 << bit % 8
        transcript = Transcript("test v1")
        transcript.absorb("item", flipped)
        seen.add(transcript.challenge("c"))
    assert len(seen) == 8 * len(item)


def test_challenges_are_field_elements() -> None:
    drawn = Transcript("test v1").challenges("many", 4096)
    assert drawn.shape == (4096, 2)
    assert (drawn < MODULUS).all()
    assert len(np.unique(drawn)) == drawn.size
    assert abs(float(drawn.mean()) / MODULUS - 0.5) < 0.02


def test_words_beyond_the_modulus_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come once in 2^32 words: so the modulus is made small instead, and nine of ten words are thrown away."""
    monkeypatch.setattr("shoal.crypto.transcript.MODULUS", (1 << 64) // 10)
    drawn = Transcript("test v1").challenges("many", 500)
    assert drawn.shape == (500, 2)
    assert (drawn < (1 << 64) // 10).all()
    assert abs(float(drawn.mean()) / ((1 << 64) // 10) - 0.5) < 0.05


def test_indices_are_distinct_sorted_and_even() -> None:
    transcript = Transcript("test v1")
    counts = np.zeros(10, int)
    for _ in range(500):
        found = transcript.indices("columns", 3, 10)
        assert found == sorted(set(found))
        assert len(found) == 3
        counts[found] += 1
    assert (np.abs(counts - 150) < 50).all()  # standard deviation 10
    assert transcript.indices("all", 10, 10) == [*range(10)]
    assert transcript.indices("none", 0, 10) == []
    with pytest.raises(ValueError, match="at most 10 distinct"):
        transcript.indices("more", 11, 10)
