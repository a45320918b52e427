"""What ranking has to beat: votes over the same answers, and other ways to choose one. Pure; answers are text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from shoal.think.bradley_terry import fit
from shoal.think.normalise import key
from shoal.think.votes import Vote, wins


def majority(answers: Sequence[str]) -> int:
    """The first answer of the largest group that says the same (self-consistency, arXiv 2203.11171, when the answers
    are one model's)."""
    return weighted_vote(answers, [1.0] * len(answers))


def weighted_vote(answers: Sequence[str], weights: Sequence[float]) -> int:
    """As `majority`, each answer counting its weight; equal groups by who came first. ValueError without answers."""
    if not answers:
        raise ValueError("expected at least one answer")
    groups: dict[str, float] = defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        groups[key(answer)] += weight
    best = max(groups.values())
    return next(i for i, answer in enumerate(answers) if groups[key(answer)] == best)


def most_likely(logprobs: Sequence[Sequence[float]]) -> int:
    """Best of n by likelihood: the answer whose tokens are on average the likeliest to the model that scored them."""
    means = [sum(answer) / len(answer) if answer else float("-inf") for answer in logprobs]
    return max(range(len(means)), key=lambda i: (means[i], -i))


def ranked(votes: Sequence[Vote], count: int, weights: Mapping[int, float]) -> int:
    """The Bradley-Terry winner of these votes: of one judge, of all pairs, of the swarm, as the votes are."""
    return fit(wins(votes, count, weights)).order()[0]
