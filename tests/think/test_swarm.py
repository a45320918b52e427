"""The whole round with scripted members: who wins, who is missing, and that nothing is left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shoal.core.chunk import Chunk
from shoal.core.errors import DeadlineExceeded, InvalidRequest, LocalError, Overloaded, Unavailable
from shoal.core.ranking import Ranking
from shoal.core.request import Request
from shoal.core.usage import Measured, Usage
from shoal.think.answers import Member
from shoal.think.judging import Judge, writing_judge
from shoal.think.round import Rules
from shoal.think.swarm import swarm

RULES = Rules(answer_s=None, judge_s=None)


class Script:
    """A member that says `text`, or fails with it if it is an error, or never comes back if it is None."""

    def __init__(self, text: str | Exception | None) -> None:
        self.text, self.closed = text, 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            if self.text is None:
                await asyncio.Event().wait()
            if isinstance(self.text, Exception):
                raise self.text
            yield Chunk(text=str(self.text), token_ids=(1, 2), finish_reason="stop")
            yield Chunk(usage=Usage(prompt_tokens=3, completion_tokens=2, cost_usd=Measured(0.5, "price")))
        finally:
            self.closed += 1


def judge(good: str, is_right: bool = True) -> Judge:
    """Prefers the answer that is `good` (or the other)."""

    async def compare(case, pair, number) -> float:  # type: ignore[no-untyped-def]
        first, second = case.answers[pair.first], case.answers[pair.second]
        if first == second or good not in (first, second):
            return 0.5
        return float((first == good) == is_right)

    async def is_good(case, answer, number) -> bool:  # type: ignore[no-untyped-def]
        return bool(case.answers[answer] != "nonsense")

    return Judge(is_good, compare)


def member(name: str, text: str | Exception | None, prefers: Judge | None = None) -> Member:
    return Member(name, Script(text).generate, lambda request: request, (lambda _: prefers) if prefers else None)


async def run(members: list[Member], rules: Rules = RULES, request: Request | None = None) -> list[Chunk]:
    return [chunk async for chunk in swarm(members, rules, lambda: 7)(request or Request("r", "swarm:x", "2+2?"))]


def outcome(chunks: list[Chunk]) -> tuple[str, Ranking, Usage]:
    last = chunks[-1]
    assert last.usage is not None
    assert last.ranking is not None
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    return "".join(chunk.text for chunk in chunks), last.ranking, last.usage


def test_judges_that_are_right_find_the_one_right_answer_among_many_wrong_ones() -> None:
    right = judge("4")
    members = [member("a", "5", right), member("b", "5", right), member("c", "4", right), member("d", "6", right)]
    chunks = asyncio.run(run(members))
    text, ranking, usage = outcome(chunks)
    assert text == "4"
    assert ranking.candidates[ranking.winner].member == "c"
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 8)
    assert usage.cost_usd == Measured(2.0, "price")
    assert len(ranking.verdicts) == 4 * (2 * 3 + 2 * 2)
    assert any("judges compare" in chunk.progress for chunk in chunks)


def test_reputation_decides_between_judges() -> None:
    members = [
        member("liar1", "5", judge("4", is_right=False)),
        member("liar2", "6", judge("4", is_right=False)),
        member("honest", "4", judge("4")),
    ]
    text, _, _ = outcome(asyncio.run(run(members)))
    assert text != "4"
    weighed = replace(RULES, weight=lambda name: 1.0 if name == "honest" else 0.1)
    text, ranking, _ = outcome(asyncio.run(run(members, weighed)))
    assert text == "4"
    assert ranking.weights == (0.1, 0.1, 1.0)


def test_newcomers_alone_all_count_the_same() -> None:
    members = [member("a", "5", judge("4")), member("b", "4", judge("4"))]
    text, ranking, _ = outcome(asyncio.run(run(members, replace(RULES, weight=lambda name: 0.0))))
    assert (text, ranking.weights) == ("4", (1.0, 1.0))


def test_what_judges_find_bad_cannot_win() -> None:
    loves_nonsense = judge("nonsense")
    members = [member("a", "nonsense", loves_nonsense), member("b", "4", loves_nonsense)]
    text, ranking, _ = outcome(asyncio.run(run(members)))
    assert text == "4"
    assert [candidate.is_good for candidate in ranking.candidates] == [False, True]


def test_members_that_fail_or_hang_are_missing_and_said() -> None:
    right, late = judge("4"), Script(None)
    members = [
        member("broken", LocalError("out of memory"), right),
        Member("hangs", late.generate, lambda request: request),
        member("a", "5", right),
        member("b", "4", right),
    ]
    chunks = asyncio.run(run(members, replace(RULES, answer_s=0.05)))
    text, ranking, _ = outcome(chunks)
    assert text == "4"
    assert ranking.missing == ("broken: out of memory", "hangs: no answer after 0.05 s")
    assert late.closed == 1


def test_below_the_quorum_it_says_who_is_missing() -> None:
    members = [member("a", "4"), member("b", LocalError("gone"))]
    with pytest.raises(Unavailable, match=r"expected answers of 2 of 2 members, found 1: b: gone"):
        asyncio.run(run(members, replace(RULES, quorum=2)))


def test_a_judge_that_dies_keeps_the_votes_it_cast() -> None:
    left = [3]

    async def compare(case, pair, number) -> float:  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0] < 0:
            raise LocalError("died")
        return float(case.answers[pair.first] == "4")

    async def good(case, answer, number) -> None:  # type: ignore[no-untyped-def]
        return None

    members = [member("a", "5", Judge(good, compare)), member("b", "4"), member("c", "6")]
    text, ranking, _ = outcome(asyncio.run(run(members)))
    assert len(ranking.verdicts) == 3
    assert text == "4"


def test_a_judge_that_hangs_is_not_waited_for() -> None:
    async def forever(case, pair, number) -> float:  # type: ignore[no-untyped-def]
        await asyncio.Event().wait()
        return 0.0

    async def good(case, answer, number) -> bool:  # type: ignore[no-untyped-def]
        return True

    members = [member("a", "5", Judge(good, forever)), member("b", "4", judge("4"))]
    chunks = asyncio.run(run(members, replace(RULES, judge_s=0.05)))
    assert outcome(chunks)[0] == "4"
    assert any("not waited for" in chunk.progress for chunk in chunks)


def test_a_cost_cap_stops_the_judging() -> None:
    members = [member("a", "5", judge("4")), member("b", "4", judge("4"))]
    text, ranking, _ = outcome(asyncio.run(run(members, replace(RULES, most_usd=0.9))))
    assert (text, ranking.verdicts) == ("5", ())


def test_equal_answers_need_no_judging() -> None:
    _, ranking, _ = outcome(asyncio.run(run([member("a", "4", judge("4")), member("b", "4", judge("4"))])))
    assert ranking.verdicts == ()


def test_closing_the_stream_ends_every_member() -> None:
    scripts = [Script(None), Script(None)]
    members = [Member(f"m{i}", script.generate, lambda request: request) for i, script in enumerate(scripts)]

    async def leave() -> None:
        stream = swarm(members, RULES)(Request("r", "swarm:x", "?"))
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert [script.closed for script in scripts] == [1, 1]


def test_what_a_swarm_cannot_honour_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="n: expected 1"):
        asyncio.run(run([member("a", "4")], request=Request("r", "s", "?", n=2)))
    with pytest.raises(ValueError, match="at least one member"):
        swarm([], RULES)


def test_a_writing_judge_reads_the_last_line_and_asks_again_once() -> None:
    said = ["I like A", "It is flawed.\nB"]

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(text=said.pop(0), finish_reason="stop")
        yield Chunk(usage=Usage())

    async def vote() -> float:
        from shoal.think.judging import Case
        from shoal.think.pairs import Pair

        asked = Request("r", "m", "?")
        return await writing_judge(generate, asked).compare(Case("p", ("x", "y"), 1), Pair(0, 1), 0)

    assert asyncio.run(vote()) == 0.0
    assert said == []


def test_a_third_of_the_members_dying_in_the_middle_loses_nothing() -> None:
    left = {"x": 2, "y": 5}

    def mortal(name: str) -> Judge:
        inner = judge("4")

        async def compare(case, pair, number) -> float:  # type: ignore[no-untyped-def]
            left[name] -= 1
            if left[name] < 0:
                raise LocalError("died")
            return await inner.compare(case, pair, number)

        return Judge(inner.good, compare)

    right = judge("4")
    living = [member(f"m{i}", "4" if i == 3 else str(50 + i), right) for i in range(6)]
    dying = [member("x", "70", mortal("x")), member("y", "71", mortal("y")), member("z", LocalError("died"), right)]
    text, ranking, usage = outcome(asyncio.run(run([*living, *dying])))
    assert text == "4"
    assert ranking.missing == ("z: died",)
    assert (len(ranking.candidates), usage.completion_tokens) == (8, 16)
    votes = {judge_: sum(verdict.judge == judge_ for verdict in ranking.verdicts) for judge_ in range(9)}
    assert (votes[6], votes[7]) == (2, 5)
    assert all(votes[number] == 2 * 7 + 2 * 4 for number in (0, 1, 2, 3, 4, 5, 8))


def test_a_full_engine_and_a_deadline_are_what_they_are_for_swarms_too() -> None:
    busy = [member(name, Overloaded("full", 3.0)) for name in "ab"]
    with pytest.raises(Overloaded, match="full"):
        asyncio.run(run(busy))
    with pytest.raises(DeadlineExceeded):
        asyncio.run(run([member("a", DeadlineExceeded("late"))]))
    with pytest.raises(Unavailable):
        asyncio.run(run([*busy, member("c", LocalError("broken"))]))


def test_nobody_judges_beyond_the_deadline() -> None:
    async def never(*asked: object) -> float:
        await asyncio.Event().wait()
        return 0.5

    async def late() -> list[Chunk]:
        asked = Request("r", "swarm:x", "2+2?", deadline=asyncio.get_running_loop().time())
        slow = Judge(never, never)  # type: ignore[arg-type]
        return await asyncio.wait_for(run([member("a", "4", slow), member("b", "5", slow)], request=asked), 5.0)

    text, ranking, _ = outcome(asyncio.run(late()))
    assert (text, ranking.verdicts) == ("4", ())
