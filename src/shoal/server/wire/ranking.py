"""A ballot as JSON: hashes in hex, everything else as it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from shoal.core.ranking import Ranking
from shoal.server.wire.base import Answer


class CandidateAnswer(Answer):
    """One answer: its member, its score (log strength) and the half width of its 95 % interval."""

    member: str
    text_sha256: str
    score: float
    half_width: float
    is_good: bool


class VerdictAnswer(Answer):
    """A judge saw `first` as A and `second` as B; for_first is 1, 0 or between."""

    judge: int
    first: int
    second: int
    for_first: float


class RankingAnswer(Answer):
    """How the answer was chosen among several: the full ballot, so that whoever reads it can count again."""

    strategy: str
    winner: int
    candidates: list[CandidateAnswer]
    verdicts: list[VerdictAnswer]
    weights: list[float]
    missing: list[str]
    seed: int


def plain_ranking(ranking: Ranking) -> dict[str, Any]:
    """The full ballot as JSON values."""
    fields = asdict(ranking)
    for candidate in fields["candidates"]:
        candidate["text_sha256"] = candidate["text_sha256"].hex()
    return fields
