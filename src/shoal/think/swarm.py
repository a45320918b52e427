"""Several members answer, each judges pairs of anonymous answers, and the best-ranked answer is the answer.

    answers    all members at once; those that fail or are late are missing, and a quorum decides whether that is enough
    filter     judges say which answers are good enough to be compared
    pairs      every member judges about 3N pairs in an order of its own (Fortytwo, arXiv 2510.24801)
    fit        Bradley-Terry over all votes, each weighed by its judge's reputation
    answer     the winner's text, with the full ballot

A `Generate` like any other: closing it cancels members and judges. A member that dies while judging keeps the votes it
cast. What was spent is the sum over all members, winners or not; judging by scores is not in it (no stream counts it).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from shoal.core.chunk import Chunk
from shoal.core.errors import ShoalError
from shoal.core.ranking import Candidate, Ranking, Verdict
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.think.answers import Member
from shoal.think.bradley_terry import Fit, fit
from shoal.think.judging import judged
from shoal.think.round import Round, Rules, check, collect, time_left, weights
from shoal.think.votes import Ballot, Vote, good_enough, wins


def swarm(members: Sequence[Member], rules: Rules, seed: Callable[[], int] = lambda: secrets.randbits(63)) -> Generate:
    """A `Generate` whose answer is the members' best. ValueError without members."""
    if not members:
        raise ValueError("expected at least one member")

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        check(request)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        state = Round(members, request, seed())
        async for words in collect(state, rules):
            yield Chunk(progress=words)
        answered = loop.time()
        async for words in _votes(state, rules):
            yield Chunk(progress=words)
        ranking = _ranking(state, rules)
        best = state.answers[ranking.winner]
        yield Chunk(text=best.text, token_ids=best.token_ids, finish_reason=best.finish_reason)
        yield Chunk(usage=state.spent.total(answered - begun, loop.time() - begun), ranking=ranking)

    return generate


async def _votes(state: Round, rules: Rules) -> AsyncIterator[str]:
    """Ballots of all who judge, at once, until the time is over."""
    texts = {answer.text for answer in state.answers}
    if len(texts) < 2 or (rules.most_usd is not None and state.spent.usd >= rules.most_usd):
        return
    judging = [number for number, member in enumerate(state.members) if member.judge is not None][: rules.judges]
    yield f"{len(judging)} judges compare {len(state.answers)} answers"
    tasks = {asyncio.ensure_future(_ballot(state, rules, number)): number for number in judging}
    try:
        _, late = (
            await asyncio.wait(tasks, timeout=time_left(state.request, rules.judge_s)) if tasks else (set(), set())
        )
        if late:
            yield f"{len(late)} judges are not waited for"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield f"{len(state.votes)} verdicts"


async def _ballot(state: Round, rules: Rules, number: int) -> None:
    """One member's judging; every vote counts from the moment it is cast."""
    member, case = state.members[number], state.case()
    if member.judge is None:
        return
    judge = member.judge(member.ask(state.request))
    if rules.filters:
        try:
            said = [await judge.good(case, answer, number) for answer in range(len(case.answers))]
        except ShoalError:
            return
        state.ballots.append(
            Ballot(number, good=frozenset(i for i, is_good in enumerate(said) if is_good is not False))
        )
    async for vote in judged(judge, case, rules.pairs(len(case.answers), state.seed, number), number):
        state.votes.append(vote)


def _ranking(state: Round, rules: Rules) -> Ranking:
    """Good answers by strength, then the others; without any vote, by number."""
    count = len(state.answers)
    by_judge = weights(state, rules)
    votes = sorted(state.votes, key=lambda vote: (vote.judge, vote.first, vote.second))
    good = good_enough(state.ballots, count, by_judge)
    found = fit(wins(votes if rules.own else _of_others(state, votes), count, by_judge))
    winner = next(answer for answer in found.order() if answer in good)
    return Ranking(
        strategy=rules.strategy,
        winner=winner,
        candidates=tuple(_candidate(state, found, answer, answer in good) for answer in range(count)),
        verdicts=tuple(Verdict(vote.judge, vote.first, vote.second, vote.for_first) for vote in votes),
        weights=tuple(by_judge[number] for number in range(len(state.members))),
        missing=tuple(state.missing),
        seed=state.seed,
    )


def _of_others(state: Round, votes: Sequence[Vote]) -> list[Vote]:
    """Votes in which nobody judges its own answer; all of them where that leaves none."""
    authors = [answer.member for answer in state.answers]
    return [vote for vote in votes if vote.judge not in (authors[vote.first], authors[vote.second])] or list(votes)


def _candidate(state: Round, found: Fit, number: int, is_good: bool) -> Candidate:
    answer = state.answers[number]
    digest = hashlib.sha256(answer.text.encode()).digest()
    name = state.members[answer.member].name
    return Candidate(name, digest, float(found.scores[number]), float(found.half_widths[number]), is_good)
