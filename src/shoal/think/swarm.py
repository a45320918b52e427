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
from dataclasses import dataclass, field

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest, ShoalError, Unavailable
from shoal.core.ranking import Candidate, Ranking, Verdict
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.think.answers import Answer, Member, Missing, gather, problem
from shoal.think.bradley_terry import Fit, fit
from shoal.think.judging import Case, judged
from shoal.think.pairs import judged_pairs
from shoal.think.spent import Spent
from shoal.think.votes import Ballot, Vote, good_enough, wins


@dataclass(frozen=True, slots=True)
class Rules:
    """answer_s, judge_s: how long to wait for answers, and for votes; None: for all of them. quorum: answers needed.

    most_usd  once so much is known to be spent nobody is asked to judge. filters: ask first what is good enough.
    weight    a member's name -> its weight as judge, 0 or more; a newcomer's is 0.
    """

    answer_s: float | None = 120.0
    judge_s: float | None = 60.0
    quorum: int = 1
    most_usd: float | None = None
    filters: bool = True
    weight: Callable[[str], float] = lambda name: 1.0


@dataclass(slots=True)
class _Round:
    """What is known so far."""

    members: Sequence[Member]
    request: Request
    seed: int
    answers: list[Answer] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    ballots: list[Ballot] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    def case(self) -> Case:
        return Case(problem(self.request), tuple(answer.text for answer in self.answers), self.seed)


def swarm(members: Sequence[Member], rules: Rules, seed: Callable[[], int] = lambda: secrets.randbits(63)) -> Generate:
    """A `Generate` whose answer is the members' best. ValueError without members."""
    if not members:
        raise ValueError("expected at least one member")

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        _check(request)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        state = _Round(members, request, seed())
        async for words in _answers(state, rules):
            yield Chunk(progress=words)
        answered = loop.time()
        async for words in _votes(state, rules):
            yield Chunk(progress=words)
        ranking = _ranking(state, rules)
        best = state.answers[ranking.winner]
        yield Chunk(text=best.text, token_ids=best.token_ids, finish_reason=best.finish_reason)
        yield Chunk(usage=state.spent.total(answered - begun, loop.time() - begun), ranking=ranking)

    return generate


def _check(request: Request) -> None:
    """A swarm gives one whole answer; what only a single stream can honour is refused."""
    if request.n != 1:
        raise InvalidRequest(f"n: expected 1 of a swarm, found {request.n}; ask again for another", "n")
    if request.tools or request.resume is not None or request.echo or request.sampling.logprobs is not None:
        name = "tools" if request.tools else "logprobs" if request.sampling.logprobs is not None else "echo"
        raise InvalidRequest(f"{name}: a swarm compares whole texts and has none; ask one of its members", name)


async def _answers(state: _Round, rules: Rules) -> AsyncIterator[str]:
    names = [member.name for member in state.members]
    yield f"{len(names)} members answer"
    async for result in gather(state.members, state.request, rules.answer_s):
        if isinstance(result, Missing):
            state.missing.append(f"{names[result.member]}: {result.why}")
            yield f"{names[result.member]} has no answer: {result.why}"
        else:
            state.answers.append(result)
            state.spent.add(result.usage)
            yield f"{names[result.member]} answered, {len(state.answers)} of {len(names)}"
    state.answers.sort(key=lambda answer: answer.member)
    if len(state.answers) < max(1, rules.quorum):
        raise Unavailable(
            f"expected answers of {max(1, rules.quorum)} of {len(names)} members, found {len(state.answers)}: "
            f"{'; '.join(state.missing)}"
        )


async def _votes(state: _Round, rules: Rules) -> AsyncIterator[str]:
    """Ballots of all who judge, at once, until the time is over."""
    texts = {answer.text for answer in state.answers}
    if len(texts) < 2 or (rules.most_usd is not None and state.spent.usd >= rules.most_usd):
        return
    judging = [number for number, member in enumerate(state.members) if member.judge is not None]
    yield f"{len(judging)} judges compare {len(state.answers)} answers"
    tasks = {asyncio.ensure_future(_ballot(state, rules, number)): number for number in judging}
    try:
        _, late = await asyncio.wait(tasks, timeout=rules.judge_s) if tasks else (set(), set())
        if late:
            yield f"{len(late)} judges are not waited for"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield f"{len(state.votes)} verdicts"


async def _ballot(state: _Round, rules: Rules, number: int) -> None:
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
    async for vote in judged(judge, case, judged_pairs(len(case.answers), state.seed, number), number):
        state.votes.append(vote)


def _ranking(state: _Round, rules: Rules) -> Ranking:
    """Good answers by strength, then the others; without any vote, by number."""
    count = len(state.answers)
    weights = {number: rules.weight(member.name) for number, member in enumerate(state.members)}
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1.0)  # nobody has a name yet: then all count the same
    votes = sorted(state.votes, key=lambda vote: (vote.judge, vote.first, vote.second))
    good = good_enough(state.ballots, count, weights)
    found = fit(wins(votes, count, weights))
    winner = next(answer for answer in found.order() if answer in good)
    return Ranking(
        strategy="swarm",
        winner=winner,
        candidates=tuple(_candidate(state, found, answer, answer in good) for answer in range(count)),
        verdicts=tuple(Verdict(vote.judge, vote.first, vote.second, vote.for_first) for vote in votes),
        weights=tuple(weights[number] for number in range(len(state.members))),
        missing=tuple(state.missing),
        seed=state.seed,
    )


def _candidate(state: _Round, found: Fit, number: int, is_good: bool) -> Candidate:
    answer = state.answers[number]
    digest = hashlib.sha256(answer.text.encode()).digest()
    name = state.members[answer.member].name
    return Candidate(name, digest, float(found.scores[number]), float(found.half_widths[number]), is_good)
