"""Simulated judges: right with chance p, biased to a position, undecided, wrong together, or dishonest.

Answers 0 ... n-1 are in order of their true quality, 0 the best; member m wrote answer m and judges. An adversary is
one of the last members. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoal.think.bradley_terry import Fit, fit
from shoal.think.pairs import Pair, judged_pairs
from shoal.think.votes import Vote, wins
from shoal.trust.reputation.exam import passes
from shoal.trust.reputation.standing import Standing, seen, weight

OBSERVED = 60
"""Calibration items behind the reputation of whoever has been here for a while."""


@dataclass(frozen=True, slots=True)
class World:
    """p: chance that a verdict is right. bias: that it is A whatever is shown. ties: that it is 'equal'.

    together  chance that a judge's error on a comparison is everybody's and not its own. share: of adversaries.
    attack    "random" (coins), "inverting" (always the worse one), "colluding" (one target, the worst answer, wins all
              its pairs; honest elsewhere, so calibration sees nothing), "self" (own answer first, honest elsewhere),
              "sybil" (colluding, and each adds ten new names that do the same), "none".
    known     chance that a calibration item is judged right: they are easier than questions. has_reputation: judges
              are weighed. own: votes on own answers count. judges: how many judge (None: all members).
    """

    n: int = 7
    p: float = 0.8
    bias: float = 0.1
    ties: float = 0.05
    together: float = 0.2
    share: float = 0.0
    attack: str = "none"
    known: float = 0.95
    has_reputation: bool = True
    own: bool = True
    judges: int | None = None
    pairs: Callable[[int, int, int], tuple[Pair, ...]] = judged_pairs


@dataclass(frozen=True, slots=True)
class Outcome:
    """is_best: the winner is the best answer; tau: Kendall's, of the ranking against the truth."""

    is_best: float
    tau: float


def outcome(world: World, trials: int, seed: int) -> Outcome:
    found = [_trial(world, np.random.default_rng([seed, trial])) for trial in range(trials)]
    return Outcome(float(np.mean([one.is_best for one in found])), float(np.mean([one.tau for one in found])))


def tau(order: Sequence[int]) -> float:
    """Kendall's, against 0, 1, 2, ..."""
    n = len(order)
    right = sum(order[i] < order[j] for i in range(n) for j in range(i + 1, n))
    return 2.0 * right / (n * (n - 1) / 2) - 1.0


def earned(p: float, rng: np.random.Generator, observed: int = OBSERVED) -> float:
    """A weight after exams and hidden items of two orders each, for somebody right with chance p on each."""
    standing = Standing(is_admitted=bool(rng.random() < passes(p * p)))
    for _ in range(observed):
        standing = seen(standing, "judging", float(rng.binomial(2, p)) / 2)
    return weight(standing)


def _trial(world: World, rng: np.random.Generator) -> Outcome:
    number = round(world.share * world.n)
    judging = range(world.n if world.judges is None else world.judges)
    bad = set(range(world.n - number, world.n))
    shared = rng.random((world.n, world.n)) < world.p
    votes: list[Vote] = []
    weights: dict[int, float] = {}
    for judge in judging:
        is_bad = judge in bad
        votes += _votes(world, judge, is_bad, shared, rng)
        weights[judge] = _weight(world, is_bad, rng)
    if world.attack == "sybil":
        for name in range(world.n, world.n + 10 * number):
            votes += _votes(world, name, True, shared, rng)
            weights[name] = 0.0 if world.has_reputation else 1.0
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    if not world.own:
        votes = [vote for vote in votes if vote.judge not in (vote.first, vote.second)]
    found: Fit = fit(wins(votes, world.n, weights))
    return Outcome(float(found.order()[0] == 0), tau(found.order()))


def _weight(world: World, is_bad: bool, rng: np.random.Generator) -> float:
    if not world.has_reputation:
        return 1.0
    known = {"random": 0.5, "inverting": 0.0}.get(world.attack, world.known) if is_bad else world.known
    return earned(known, rng)


def _votes(world: World, judge: int, is_bad: bool, shared: np.ndarray, rng: np.random.Generator) -> list[Vote]:
    seed = int(rng.integers(2**31))
    return [
        Vote(judge, pair.first, pair.second, _said(world, judge, is_bad, pair, shared, rng))
        for pair in world.pairs(world.n, seed, judge)
    ]


def _said(world: World, judge: int, is_bad: bool, pair: Pair, shared: np.ndarray, rng: np.random.Generator) -> float:
    truth = float(pair.first < pair.second)
    if is_bad and world.attack == "random":
        return float(rng.random() < 0.5)
    if is_bad and world.attack == "inverting":
        return 1.0 - truth
    if is_bad and world.attack in ("colluding", "sybil") and world.n - 1 in (pair.first, pair.second):
        return float(pair.first == world.n - 1)
    if is_bad and world.attack == "self" and judge in (pair.first, pair.second):
        return float(pair.first == judge)
    if rng.random() < world.bias:
        return 1.0
    if rng.random() < world.ties:
        return 0.5
    low, high = sorted((pair.first, pair.second))
    is_right = shared[low, high] if rng.random() < world.together else rng.random() < world.p
    return truth if is_right else 1.0 - truth


@dataclass(frozen=True, slots=True)
class Whitewash:
    """Over `rounds` ballots: share won by the best answer, and the adversaries' mean weight while they lied."""

    with_reputation: float
    without: float
    names: float


def whitewashing(world: World, rounds: int, seed: int) -> Whitewash:
    """Adversaries that judge honestly until they weigh more than half, then invert every verdict until they weigh
    nothing (calibration items too: they cannot tell them), and come back under new names."""
    rng = np.random.default_rng(seed)
    number = round(world.share * world.n)
    bad = list(range(world.n - number, world.n))
    standings = {judge: _seasoned(world.known, rng) for judge in range(world.n - number)} | {
        judge: Standing() for judge in bad
    }
    lying, names, right = dict.fromkeys(bad, False), 0, [0, 0]
    for _ in range(rounds):
        shared = rng.random((world.n, world.n)) < world.p
        votes: list[Vote] = []
        for judge, standing in standings.items():
            lies = lying.get(judge, False)
            votes += _votes(replace(world, attack="inverting"), judge, lies, shared, rng)
            accuracy = 0.0 if lies else float(rng.binomial(2, world.known)) / 2
            standings[judge] = _after(standing, accuracy)
        weights = {judge: weight(standing) for judge, standing in standings.items()}
        for index, weighed in enumerate((weights, dict.fromkeys(weights, 1.0))):
            right[index] += fit(wins(votes, world.n, weighed)).order()[0] == 0
        for judge in bad:
            if not lying[judge] and weights[judge] > 0.5:
                lying[judge] = True
            elif lying[judge] and weights[judge] == 0.0:
                lying[judge], standings[judge], names = False, Standing(), names + 1
    return Whitewash(right[0] / rounds, right[1] / rounds, names / max(1, number))


def _seasoned(known: float, rng: np.random.Generator) -> Standing:
    standing = Standing(is_admitted=True)
    for _ in range(OBSERVED):
        standing = seen(standing, "judging", float(rng.binomial(2, known)) / 2)
    return standing


def _after(standing: Standing, accuracy: float) -> Standing:
    """One hidden item later; whoever has seen twenty is admitted as an honest judge of this accuracy would be."""
    after = seen(standing, "judging", accuracy)
    return replace(after, is_admitted=after.is_admitted or after.num_judging >= 20)
