"""Speculation in its barest form over two runners: what a draft's guesses are worth, and what they cost.

No scheduler, no text: one sequence, `length` proposals a round, verified in one batch (2211.17192, algorithm 1).
Greedy answers are those of the target alone, sampled ones have its distribution.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np

from shoal.models.batch import Batch


class Runs(Protocol):
    """The part of a runner that is needed here."""

    @property
    def block_size(self) -> int: ...

    @property
    def num_blocks(self) -> int: ...

    def run(self, batch: Batch) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """length proposals per round; answers end at one of `ends` or after `max_tokens`."""

    length: int = 3
    temperature: float = 0.0
    max_tokens: int = 96
    ends: frozenset[int] = frozenset()
    seed: int = 0


@dataclass(slots=True)
class Tally:
    """What one or more answers took. Times are seconds; prompts are not counted."""

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    draft_s: float = 0.0
    target_s: float = 0.0
    total_s: float = 0.0
    outputs: list[list[int]] = field(default_factory=list)


class Lane:
    """One sequence in a runner whose every block is its own. `done` tokens have their keys in the cache."""

    def __init__(self, runner: Runs) -> None:
        self._runner = runner
        self._table = np.arange(runner.num_blocks, dtype=np.int32)[None]
        self.done = 0

    def feed(self, tokens: Sequence[int], outputs: int) -> np.ndarray:
        """Run `tokens` after those done; float32 logits (outputs, vocab) of the last ones, valid until the next."""
        start, stop = self.done, self.done + len(tokens)
        positions = np.arange(start, stop, dtype=np.int32)
        batch = Batch(
            tokens=np.array(tokens, np.int32),
            positions=positions,
            slots=positions,
            query_start=np.array([0, len(tokens)], np.int32),
            context_lens=np.array([stop], np.int32),
            block_tables=self._table,
            adapters=np.array([-1], np.int32),
            output_rows=np.arange(len(tokens) - outputs, len(tokens), dtype=np.int32),
        )
        self.done = stop
        return self._runner.run(batch)


def answer(target: Runs, prompt: Sequence[int], rules: Rules) -> Tally:
    """The target alone, token by token."""
    lane, random = Lane(target), np.random.default_rng(rules.seed)
    tokens, tally = list(prompt), Tally()
    lane.feed(tokens[:-1], 0)
    began = time.perf_counter()
    while not _is_over(tokens, len(prompt), rules):
        logits = lane.feed(tokens[-1:], 1)
        tokens.append(_draw(_shares(logits[0], rules), random))
        tally.rounds += 1
    tally.total_s = tally.target_s = time.perf_counter() - began
    return _finish(tally, tokens, len(prompt), rules)


def speculate(target: Runs, draft: Runs, prompt: Sequence[int], rules: Rules) -> Tally:
    """The same answer with proposals of `draft`."""
    lanes, random = (Lane(target), Lane(draft)), np.random.default_rng(rules.seed)
    tokens, tally = list(prompt), Tally()
    for lane in lanes:
        lane.feed(tokens[:-1], 0)
    began = time.perf_counter()
    while not _is_over(tokens, len(prompt), rules):
        _round(lanes, tokens, rules, random, tally)
    tally.total_s = time.perf_counter() - began
    return _finish(tally, tokens, len(prompt), rules)


def _round(lanes: tuple[Lane, Lane], tokens: list[int], rules: Rules, random: np.random.Generator, t: Tally) -> None:
    """Propose, verify, and append what was accepted and one token of the target's own."""
    began = time.perf_counter()
    proposals, beliefs = _propose(lanes[1], tokens, rules, random)
    drafted = time.perf_counter()
    target = [_shares(row, rules) for row in lanes[0].feed([tokens[-1], *proposals], len(proposals) + 1)]
    count = 0
    while count < len(proposals) and _is_accepted(proposals[count], target[count], beliefs[count], random):
        count += 1
    own = target[count] if count == len(proposals) else _rest(target[count], beliefs[count])
    tokens += [*proposals[:count], _draw(own, random)]
    for lane in lanes:
        lane.done = min(lane.done, len(tokens) - 1)
    t.rounds, t.drafted, t.accepted = t.rounds + 1, t.drafted + len(proposals), t.accepted + count
    t.draft_s, t.target_s = t.draft_s + drafted - began, t.target_s + time.perf_counter() - drafted


def _propose(
    lane: Lane, tokens: Sequence[int], rules: Rules, random: np.random.Generator
) -> tuple[list[int], list[np.ndarray]]:
    """(proposals, the distribution each was drawn from)."""
    pending, proposals, beliefs = list(tokens[lane.done :]), [], []
    for _ in range(rules.length):
        beliefs.append(_shares(lane.feed(pending, 1)[0], rules))
        proposals.append(_draw(beliefs[-1], random))
        pending = proposals[-1:]
    return proposals, beliefs


def _shares(logits: np.ndarray, rules: Rules) -> np.ndarray:
    """Probabilities (vocab,); at temperature 0 only the likeliest token's place, as an array of one id."""
    if rules.temperature == 0:
        return np.array([logits.argmax()])
    scaled = np.exp((logits - logits.max()) * np.float32(1 / rules.temperature))
    return np.asarray(scaled / scaled.sum())


def _draw(shares: np.ndarray, random: np.random.Generator) -> int:
    if len(shares) == 1:
        return int(shares[0])
    steps = np.cumsum(shares, dtype=np.float64)
    return int(min(np.searchsorted(steps, random.random() * steps[-1], side="right"), len(shares) - 1))


def _is_accepted(token: int, target: np.ndarray, belief: np.ndarray, random: np.random.Generator) -> bool:
    if len(target) == 1:
        return token == int(target[0])
    return bool(random.random() * belief[token] < target[token])


def _rest(target: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """What the target gives beyond the draft's belief, unnormalised."""
    if len(target) == 1:
        return target
    rest = np.maximum(target - belief, 0)
    return rest if rest.any() else target  # equal but for rounding


def _is_over(tokens: list[int], start: int, rules: Rules) -> bool:
    return len(tokens) - start >= rules.max_tokens or not rules.ends.isdisjoint(tokens[start:])


def _finish(tally: Tally, tokens: list[int], start: int, rules: Rules) -> Tally:
    """Cut what came after the end."""
    output = tokens[start : start + rules.max_tokens]
    stop = next((i + 1 for i, token in enumerate(output) if token in rules.ends), len(output))
    tally.outputs.append(output[:stop])
    tally.tokens = stop
    return tally


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them as one."""
    found = Tally()
    for tally in tallies:
        for item in fields(Tally):
            setattr(found, item.name, getattr(found, item.name) + getattr(tally, item.name))
    return found
