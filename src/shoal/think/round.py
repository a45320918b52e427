"""One round of answers, for every way to choose among them: who answered, who did not, what it cost so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from shoal.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, ShoalError, Unavailable
from shoal.core.request import Request
from shoal.think.answers import Answer, Member, Missing, gather, problem
from shoal.think.judging import Case
from shoal.think.pairs import Pair, judged_pairs
from shoal.think.spent import Spent
from shoal.think.votes import Ballot, Vote


@dataclass(frozen=True, slots=True)
class Rules:
    """answer_s, judge_s: how long to wait for answers, and for votes; None: for all of them. quorum: answers needed.

    most_usd  once so much is known to be spent nobody is asked to judge. filters: ask first what is good enough.
    weight    a member's name -> its weight as judge, 0 or more; a newcomer's is 0.
    judges    how many members judge, from the first on; None: all. pairs: (answers, seed, judge) -> who is compared.
    own       whether a judge's votes on its own answer count, where others judge too.
    """

    answer_s: float | None = 120.0
    judge_s: float | None = 60.0
    quorum: int = 1
    most_usd: float | None = None
    filters: bool = True
    weight: Callable[[str], float] = lambda name: 1.0
    judges: int | None = None
    pairs: Callable[[int, int, int], tuple[Pair, ...]] = judged_pairs
    own: bool = True
    strategy: str = "swarm"


@dataclass(slots=True)
class Round:
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


def check(request: Request) -> None:
    """One whole answer is given; what only a single stream can honour is refused."""
    if request.n != 1:
        raise InvalidRequest(f"n: expected 1 of a swarm, found {request.n}; ask again for another", "n")
    if request.tools or request.resume is not None or request.echo or request.sampling.logprobs is not None:
        name = "tools" if request.tools else "logprobs" if request.sampling.logprobs is not None else "echo"
        raise InvalidRequest(f"{name}: a swarm compares whole texts and has none; ask one of its members", name)


async def collect(state: Round, rules: Rules) -> AsyncIterator[str]:
    """Everybody's answer into `state`; what happens, in words. Below the quorum Unavailable, or what all failed of."""
    errors: list[ShoalError | None] = []
    names = [member.name for member in state.members]
    yield f"{len(names)} members answer"
    async for result in gather(state.members, state.request, rules.answer_s):
        if isinstance(result, Missing):
            errors.append(result.error)
            state.missing.append(f"{names[result.member]}: {result.why}")
            yield f"{names[result.member]} has no answer: {result.why}"
        else:
            state.answers.append(result)
            state.spent.add(result.usage)
            yield f"{names[result.member]} answered, {len(state.answers)} of {len(names)}"
    state.answers.sort(key=lambda answer: answer.member)
    if len(state.answers) < max(1, rules.quorum):
        if errors and (alike := _alike(errors)) is not None:
            raise alike
        raise Unavailable(
            f"expected answers of {max(1, rules.quorum)} of {len(names)} members, found {len(state.answers)}: "
            f"{'; '.join(state.missing)}"
        )


def _alike(errors: Sequence[ShoalError | None]) -> ShoalError | None:
    """The first of errors of one class that whoever asked can act on: a full engine is Overloaded for swarms too."""
    is_one = len({type(error) for error in errors}) == 1
    return errors[0] if is_one and isinstance(errors[0], Overloaded | DeadlineExceeded | InvalidRequest) else None


def time_left(request: Request, most_s: float | None) -> float | None:
    """`most_s`, or what the request's deadline leaves of it."""
    if request.deadline is None:
        return most_s
    left = max(0.0, request.deadline - asyncio.get_running_loop().time())
    return left if most_s is None else min(most_s, left)


def weights(state: Round, rules: Rules) -> dict[int, float]:
    """Of each member as judge. Nobody has a name yet: then all count the same."""
    found = {number: rules.weight(member.name) for number, member in enumerate(state.members)}
    return found if any(found.values()) else dict.fromkeys(found, 1.0)
