"""How an answer was chosen among several: the words of a ballot, so that anybody can count it again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer. score: natural log of its Bradley-Terry strength, mean 0; half_width: of the 95 % interval.

    is_good  whether the judges let it into the comparison; text_sha256 of the answer's UTF-8 text.
    """

    member: str
    text_sha256: bytes
    score: float
    half_width: float
    is_good: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judge `judge` (a member's number) saw candidate `first` as A and `second` as B; for_first: 1, 0 or between."""

    judge: int
    first: int
    second: int
    for_first: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """The full ballot.

    strategy  how the winner was chosen. weights: of each member as judge, in the order of the members. missing: members
              without an answer, and why. seed: of the orders in which judges saw the answers.
    """

    strategy: str
    winner: int
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...] = ()
    weights: tuple[float, ...] = ()
    missing: tuple[str, ...] = ()
    seed: int = 0
