"""Judges under watch: what they are asked, when they are admitted, what they weigh."""

from __future__ import annotations

import asyncio
import random

from shoal.core.errors import Unsupported
from shoal.node.reputation import Judges, made_items
from shoal.think.judging import Case, Judge
from shoal.think.pairs import Pair
from shoal.trust.reputation.exam import Item

CASE = Case("what is asked", ("one", "two"), 5)


def numbered(count: int, seed: int) -> list[Item]:
    return [Item(f"question {seed} {i}", "right", "wrong") for i in range(count)]


def knowing(seen: list[str], p: float, draw: random.Random) -> Judge:
    """Right with chance p on calibration items; says A of anything else."""

    async def compare(case: Case, pair: Pair, number: int) -> float:
        seen.append(case.problem)
        if "right" not in case.answers:
            return 1.0
        is_right = draw.random() < p
        return float((case.answers[pair.first] == "right") == is_right)

    async def good(case: Case, answer: int, number: int) -> bool:
        return True

    return Judge(good, compare)


def ballots(judges: Judges, name: str, p: float, count: int) -> list[str]:
    seen: list[str] = []
    judge = knowing(seen, p, random.Random(7))

    async def run() -> None:
        for _ in range(count):
            watched = judges.watched(name, judge)
            for pair in (Pair(0, 1), Pair(1, 0)):
                assert await watched.compare(CASE, pair, 0) == 1.0

    asyncio.run(run())
    return seen


def test_one_item_a_ballot_in_both_orders_never_the_same_twice() -> None:
    seen = ballots(Judges(numbered, draw=random.Random(1)), "a", 1.0, 30)
    items = [question for question in seen if question != CASE.problem]
    assert len(items) == 60
    assert len(set(items)) == 30
    assert seen.count(CASE.problem) == 60


def test_a_judge_weighs_nothing_until_it_has_passed_its_exam() -> None:
    judges = Judges(numbered, draw=random.Random(1))
    ballots(judges, "good", 1.0, 19)
    assert judges.weight("good") == 0.0
    ballots(judges, "good", 1.0, 1)
    assert judges.weight("good") > 0.7
    ballots(judges, "coin", 0.5, 60)
    ballots(judges, "liar", 0.0, 60)
    assert [judges.weight(name) for name in ("coin", "liar", "never asked")] == [0.0, 0.0, 0.0]


def test_without_a_source_of_items_judging_goes_on() -> None:
    def none(count: int, seed: int) -> list[Item]:
        raise Unsupported("the library is missing")

    judges = Judges(none)
    assert ballots(judges, "a", 1.0, 2) == [CASE.problem] * 4
    assert judges.weight("a") == 0.0


def test_items_are_generated_with_two_different_answers() -> None:
    items = made_items(12, 3)
    assert len(items) == 12
    assert any(item.right != item.wrong for item in items)
    assert items == made_items(12, 3)
