"""How one member judges: by scoring the letters A and B, or by writing a verdict. Both are a `Judge`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from shoal.core.errors import ShoalError
from shoal.core.request import Message, Request, Sampling
from shoal.core.seams import Generate, closing
from shoal.think.normalise import final_answer
from shoal.think.pairs import Pair
from shoal.think.quoting import fence, good_prompt, pair_prompt, verdict
from shoal.think.votes import Vote

Score = Callable[[tuple[Message, ...], tuple[str, ...]], Awaitable[tuple[float, ...]]]
"""Messages, and texts that could follow as the answer -> log-probability (nats) of each text there."""

TRIES = 2
JUDGE_TEMPERATURE = 0.3
JUDGE_TOKENS = 120
MOST_READ = 200
"""Characters of a final answer that a judge by likelihood scores."""
AT_ONCE = 4
"""Questions one judge is asked at the same time: they share prefixes, and batches are cheaper than turns."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: the problem, the answers by number, and the ballot's seed."""

    problem: str
    answers: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Judge:
    """`good` -> whether an answer may take part, None if it does not say; `compare` -> 1 (A), 0 (B) or between.

    Both raise `ShoalError` when the judge is gone; a judge that says nothing usable is unsure.
    """

    good: Callable[[Case, int, int], Awaitable[bool | None]]
    compare: Callable[[Case, Pair, int], Awaitable[float]]


def scoring_judge(score: Score) -> Judge:
    """A judge whose verdict is P(A) against P(B): no text is parsed, so there is no letter to argue it into writing."""

    async def good(case: Case, answer: int, judge: int) -> bool | None:
        words = good_prompt(case.problem, case.answers[answer], fence(case.seed, judge))
        yes, no = await score(words, ("GOOD", "BAD"))
        return yes >= no

    async def compare(case: Case, pair: Pair, judge: int) -> float:
        words = pair_prompt(
            case.problem, case.answers[pair.first], case.answers[pair.second], fence(case.seed, judge), False
        )
        a, b = await score(words, ("A", "B"))
        return 1.0 / (1.0 + math.exp(max(-700.0, min(700.0, b - a))))

    return Judge(good, compare)


def likelihood_judge(score: Score) -> Judge:
    """A judge that is asked nothing about answers: its verdict is how likely it finds either one as its own answer.

    It reads final answers only (`final_answer`), one at a time, so there is no position to prefer and no instruction
    to obey. score: total log-probability of a text as the whole answer. Made for short answers; of long ones only the
    last line counts.
    """

    known: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    turn = asyncio.Lock()

    async def likelihoods(case: Case) -> dict[str, float]:
        """Of every different final answer of a case: one prompt and a few words each, once."""
        async with turn:
            if (case.problem, case.answers) not in known:
                texts = tuple(dict.fromkeys(short(text) for text in case.answers))
                found = await score((Message("user", case.problem),), texts)
                known[case.problem, case.answers] = dict(zip(texts, found, strict=True))
            return known[case.problem, case.answers]

    async def good(case: Case, answer: int, judge: int) -> bool | None:
        return None

    async def compare(case: Case, pair: Pair, judge: int) -> float:
        found = await likelihoods(case)
        a, b = (found[short(case.answers[number])] for number in (pair.first, pair.second))
        return 1.0 / (1.0 + math.exp(max(-700.0, min(700.0, b - a))))

    return Judge(good, compare)


def short(answer: str) -> str:
    """What a judge by likelihood reads of an answer: its final answer, the beginning of it where that is long."""
    return final_answer(answer)[:MOST_READ] or " "


def writing_judge(generate: Generate, request: Request) -> Judge:
    """A judge that reasons in a few sentences and ends with a letter: for members that only stream text.

    request  whose model, adapter, deadline and priority the judge's questions take over.
    """

    async def ask(words: tuple[Message, ...], name: str) -> str:
        sampling = Sampling(temperature=JUDGE_TEMPERATURE, max_tokens=JUDGE_TOKENS)
        asked = Request(f"{request.request_id}-{name}", request.model, words, sampling, adapter=request.adapter,
                        priority=request.priority, deadline=request.deadline)  # fmt: skip
        async with closing(generate(asked)) as chunks:
            return "".join([chunk.text async for chunk in chunks])

    async def good(case: Case, answer: int, judge: int) -> bool | None:
        words = good_prompt(case.problem, case.answers[answer], fence(case.seed, judge))
        said = (await ask(words, f"g{judge}.{answer}")).upper()
        found = [word for word in ("GOOD", "BAD") if word in said]
        return found == ["GOOD"] if len(found) == 1 else None

    async def compare(case: Case, pair: Pair, judge: int) -> float:
        a, b = case.answers[pair.first], case.answers[pair.second]
        words = pair_prompt(case.problem, a, b, fence(case.seed, judge), True)
        for turn in range(TRIES):
            said = verdict(await ask(words, f"j{judge}.{pair.first}.{pair.second}.{turn}"))
            if said is not None:
                return said
        return 0.5

    return Judge(good, compare)


async def judged(judge: Judge, case: Case, pairs: Sequence[Pair], number: int) -> AsyncIterator[Vote]:
    """Votes of member `number`, as they come; ends early, without an error, when the judge is gone."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pair: Pair) -> Vote:
        async with gate:
            return Vote(number, pair.first, pair.second, await judge.compare(case, pair, number))

    tasks = [asyncio.ensure_future(one(pair)) for pair in pairs]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    except ShoalError:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
