"""What is measured: small seeded workloads of the kinds people run. Prompts are text, so they fit any model.

Each kind comes in two sizes. Asks of one turn are there at once; turns follow one another.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_SUBJECTS = ("The river", "A careful engineer", "My neighbour", "The old library", "Every sailor", "The committee")
_VERBS = ("remembers", "builds", "describes", "forgets", "measures", "repairs", "explains", "carries", "follows")
_OBJECTS = ("the broken bridge", "a list of numbers", "seven blue stones", "the history of salt", "an unusual clock")
_WHERE = ("near the harbour", "before sunrise", "without a map", "in the second year", "for the last time", "by hand")


@dataclass(frozen=True, slots=True)
class Ask:
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """kind: one of `KINDS` or "mixed"; turns: asks that run together, one tuple after the other."""

    kind: str
    turns: tuple[tuple[Ask, ...], ...]

    @property
    def asks(self) -> tuple[Ask, ...]:
        return tuple(ask for turn in self.turns for ask in turn)


def prose(rng: random.Random, words: int) -> str:
    """Sentences that say little and never repeat, about `words` words."""
    text: list[str] = []
    while len(text) < words:
        parts = (rng.choice(_SUBJECTS), rng.choice(_VERBS), rng.choice(_OBJECTS), rng.choice(_WHERE))
        text += f"{' '.join(parts)}, {rng.randrange(10_000)} times.".split()
    return " ".join(text[:words])


def _short_chat(rng: random.Random, size: int) -> Workload:
    asks = (Ask(f"Question: why is it that {prose(rng, 12)}\nAnswer:", 24) for _ in range(2 * size))
    return Workload("short_chat", tuple((ask,) for ask in asks))


def _long_prompt(rng: random.Random, size: int) -> Workload:
    return Workload("long_prompt", ((Ask(f"{prose(rng, 350 * size)}\nIn one sentence:", 8),),))


def _shared_prefix(rng: random.Random, size: int) -> Workload:
    common = prose(rng, 200 * size)
    asks = (Ask(f"{common}\nQuestion: {prose(rng, 10)}\nAnswer:", 8) for _ in range(4))
    return Workload("shared_prefix", tuple((ask,) for ask in asks))


def _agentic(rng: random.Random, size: int) -> Workload:
    """A tool loop: every turn sends what went before and the next result, of the same shape; outputs repeat inputs."""
    log, turns = "Rows of the table, one per line.\n", []
    for step in range(3):
        rows = (f'{{"id": {step}{row}, "name": "{rng.choice(_OBJECTS)}", "state": "open"}}' for row in range(2 * size))
        log += "\n".join(rows) + "\nAgain, with the state closed:\n"
        turns.append((Ask(log, 24),))
    return Workload("agentic", tuple(turns))


def _batch(rng: random.Random, size: int) -> Workload:
    return Workload("batch", (tuple(Ask(f"Summary: {prose(rng, 40)}\nTitle:", 16) for _ in range(6 * size)),))


KINDS: dict[str, Callable[[random.Random, int], Workload]] = {
    "short_chat": _short_chat, "long_prompt": _long_prompt, "shared_prefix": _shared_prefix, "agentic": _agentic,
    "batch": _batch,
}  # fmt: skip


def workload(kind: str, size: int, seed: int) -> Workload:
    """The same for the same arguments; another seed gives other text of the same lengths, so that no cache knows it."""
    return KINDS[kind](random.Random(f"{kind} {size} {seed}"), size)  # noqa: S311 - any text will do


def mixed(seed: int) -> Workload:
    """A little of every kind, all there at once but for what shares a prefix: what `shoal tune` measures."""
    parts = [workload(kind, 1, seed) for kind in KINDS]
    first = tuple(ask for part in parts for ask in part.turns[0])
    rest = tuple(ask for part in parts for turn in part.turns[1:] for ask in turn)
    return Workload("mixed", (first, rest))
