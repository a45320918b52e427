"""Judges under watch: an exam in instalments, hidden among what they judge anyway, and the weight they earn.

Every ballot of a judge holds one calibration item more, asked in both orders and in the words of the ballot. The first
twenty are its exam (17 must be right), all of them move its reputation; until it has passed it weighs nothing. Where
nobody has any weight yet all weigh the same (`think.round.weights`), so a node that was just started ranks too.

A judge is known by the model it judges with: members that differ in temperature share one reputation. What this does
not protect against: whoever serves a model under a name that others serve well shares their name until audits
(`node.checking`) find it out; those know peers by their keys.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shoal.core.errors import ShoalError
from shoal.think.judging import Case, Judge
from shoal.think.pairs import Pair
from shoal.trust.reputation.exam import Asked, Item, Mark, Rules, fresh, mark, order
from shoal.trust.reputation.standing import Standing, seen, weight

FAMILIES = ("chain_sum", "basic_arithmetic", "gcd", "lcm", "products")
MOST_USED = 100_000

MakeItems = Callable[[int, int], Sequence[Item]]
"""How many, seed -> calibration items."""


def made_items(count: int, seed: int) -> list[Item]:
    """Generated questions; the wrong answer is the right one of another, so that it looks alike."""
    from shoal.node.tasks import tasks

    drawn = tasks(FAMILIES, count + len(FAMILIES), seed)
    return [
        Item(one.question, one.answer, other.answer) for one, other in zip(drawn, drawn[len(FAMILIES) :], strict=False)
    ]


@dataclass(slots=True)
class _Candidate:
    standing: Standing = field(default_factory=Standing)
    right: int = 0
    asked: int = 0


@dataclass(slots=True)
class Judges:
    """What this node knows of those who judged for it. `make`: where items come from."""

    make: MakeItems = made_items
    rules: Rules = field(default_factory=Rules)
    draw: random.Random = field(default_factory=random.SystemRandom)
    _known: dict[str, _Candidate] = field(default_factory=dict)
    _used: set[bytes] = field(default_factory=set)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def weight(self, name: str) -> float:
        return weight(self.standing(name))

    def standing(self, name: str) -> Standing:
        known = self._known.get(name)
        return Standing() if known is None else known.standing

    def watched(self, name: str, judge: Judge) -> Judge:
        """`judge` for one ballot, which asks one calibration item on the way."""
        waiting = [True]

        async def compare(case: Case, pair: Pair, number: int) -> float:
            if waiting:
                waiting.clear()
                await self._ask(name, judge, case, number)
            return await judge.compare(case, pair, number)

        return Judge(judge.good, compare)

    async def _ask(self, name: str, judge: Judge, case: Case, number: int) -> None:
        """One item in both orders. Without a source of items nobody is examined."""
        try:
            async with self._turn:
                item = await asyncio.to_thread(self._item)  # the first one imports a library for seconds
        except ShoalError:
            return
        asked = order(1, self.draw)
        hidden = replace(case, problem=item.question, answers=(item.right, item.wrong))
        said = [await judge.compare(hidden, Pair(0, 1) if one.right_first else Pair(1, 0), number) for one in asked]
        self.note(name, asked, said)

    def note(self, name: str, asked: Sequence[Asked], said: Sequence[float]) -> Mark:
        """One item's verdicts: reputation moves by how many of its orders were right, the exam by both."""
        known = self._known.setdefault(name, _Candidate())
        one = mark(asked, said)
        orders = sum(s > 0.5 if a.right_first else s < 0.5 for a, s in zip(asked, said, strict=True)) / len(asked)
        known.standing = seen(known.standing, "judging", orders)
        known.right, known.asked = known.right + one.right, known.asked + 1
        if known.asked == self.rules.items:
            has_passed = Mark(known.right, known.asked, 0).has_passed(self.rules)
            known.standing = replace(known.standing, is_admitted=has_passed or known.standing.is_admitted)
            known.right = known.asked = 0  # whoever failed may try again, on other items
        return one

    def _item(self) -> Item:
        if len(self._used) > MOST_USED:
            self._used.clear()  # forgotten long enough
        return fresh(self.make, 1, self._used, self.draw)[0]
