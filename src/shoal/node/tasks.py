"""Questions with known answers, made by `reasoning-gym`: the same seed gives the same questions, another one others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.errors import InvalidRequest, Unsupported
from shoal.think.normalise import key

EASY: dict[str, dict[str, Any]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "basic_arithmetic": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 20},
    "letter_counting": {"min_words": 1, "max_words": 2},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
}
"""Families a small model answers now and then, with settings that keep them easy; others come as they are."""


@dataclass(frozen=True, slots=True)
class Task:
    question: str
    answer: str

    def is_right(self, text: str) -> bool:
        """Whether the final answer of `text` is the known one, however it is spelled."""
        return key(text) == key(self.answer)


def tasks(families: Sequence[str], count: int, seed: int) -> list[Task]:
    """`count` questions of the families in turn. Unsupported without the library; InvalidRequest for unknown names."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise Unsupported("questions need a library that is missing: pip install 'shoal[swarm]'") from None
    for family in families:
        if family not in DATASETS:
            some = ", ".join(sorted(DATASETS)[:12])
            raise InvalidRequest(f"--tasks: expected families of reasoning-gym ({some}, ...), found {family!r}")
    each = -(-count // len(families))
    rows = [reasoning_gym.create_dataset(family, size=each, seed=seed, **EASY.get(family, {})) for family in families]
    mixed = [Task(row["question"], str(row["answer"])) for group in zip(*rows, strict=True) for row in group]
    return mixed[:count]
