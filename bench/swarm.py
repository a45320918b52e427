"""Does a swarm of small real models answer better than its members, than their majority, and in spite of injections?

Claims measured, on generated questions with exact answers that no specialist was trained on (bench/data/specialists):
accuracy of the swarm against majority, weighted vote, best of n by likelihood, and every member, over the same answers;
how many of 240 injections inside wrong answers change the winner; time of ranking against time of answering, N = 7.

Members: the default model at five temperatures, and two specialists (0.4 million weights each). Judging is by
likelihood (`likelihood_judge`); judging by letters is measured on pairs, because the default model does it near chance.
Reputation comes from twenty calibration items a judge, drawn apart.

    python bench/swarm.py [--model FILE] [--questions N] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.injections import injected
from common.replay import opened
from common.report import finish, machine, table
from shoal.core.request import Message, Request, Sampling
from shoal.node.swarms import Here, likelihoods, scorer
from shoal.node.tasks import Task, tasks
from shoal.think.answers import Answer, Member, Missing, gather
from shoal.think.baselines import majority, most_likely, weighted_vote
from shoal.think.bradley_terry import fit
from shoal.think.judging import Case, Judge, judged, likelihood_judge, scoring_judge
from shoal.think.pairs import Pair, judged_pairs
from shoal.think.round import Rules
from shoal.think.swarm import swarm
from shoal.think.votes import Vote, wins
from shoal.trust.reputation.standing import Standing, seen
from train_specialists import ASKED, SPECIALISTS, is_held_out

HINT = "\nAnswer with the result alone."
HEATS = (0.0, 0.3, 0.6, 0.8, 1.0)
CALIBRATION = 20
LONGEST = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, everybody's answers (by member), and everybody's votes."""

    task: Task
    answers: tuple[Answer, ...]
    votes: tuple[Vote, ...]

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.answers]


def fresh(count: int, seed: int) -> list[Task]:
    """Different held-out questions, the families in turn as far as each has any."""
    drawn = [task for task in tasks(ASKED, 8 * count, seed) if is_held_out(task)]
    return list({task.question: task for task in drawn}.values())[:count]


def member(name: str, here: Here, heat: float, hint: str, judge: Judge) -> Member:
    def ask(request: Request) -> Request:
        text = str(request.prompt[0].content) + hint  # type: ignore[union-attr]
        sampling = Sampling(temperature=heat, max_tokens=LONGEST, seed=7, logprobs=0)
        return replace(request, model=here.model, prompt=(Message("user", text),), sampling=sampling)

    return Member(name, here.engine.generate, ask, lambda own: judge)


def hinted(here: Here, hint: str) -> Any:
    score = likelihoods(here, None)

    async def with_hint(messages: tuple[Message, ...], texts: tuple[str, ...]) -> tuple[float, ...]:
        return await score((Message("user", f"{messages[0].content}{hint}"),), texts)

    return with_hint


def question(task: Task, number: int) -> Request:
    return Request(f"q{number}", "swarm", (Message("user", task.question),), Sampling())


async def answers_of(members: Sequence[Member], task: Task, number: int) -> tuple[Answer, ...]:
    found = [one async for one in gather(members, question(task, number), None)]
    missing = [one for one in found if isinstance(one, Missing)]
    if missing:
        raise RuntimeError(f"expected an answer of every member: {missing[0].why}")
    return tuple(sorted((one for one in found if isinstance(one, Answer)), key=lambda one: one.member))


def judge_of(one: Member, request: Request) -> Judge:
    if one.judge is None:
        raise RuntimeError("expected members that judge")
    return one.judge(request)


async def votes_of(members: Sequence[Member], case: Case, request: Request) -> tuple[Vote, ...]:
    votes: list[Vote] = []
    for number, one in enumerate(members):
        pairs = judged_pairs(len(case.answers), case.seed, number)
        votes += [vote async for vote in judged(judge_of(one, request), case, pairs, number)]
    return tuple(votes)


async def ask(members: Sequence[Member], task: Task, number: int) -> Asked:
    answers = await answers_of(members, task, number)
    case = Case(task.question, tuple(answer.text for answer in answers), number)
    return Asked(task, answers, await votes_of(members, case, question(task, number)))


async def calibrated(members: Sequence[Member], seed: int) -> list[float]:
    """A weight for each judge: 2R - 1 after twenty known pairs in both orders, the exam left aside (see docs)."""
    items = fresh(2 * CALIBRATION, seed)
    pairs = [(one, other.answer) for one, other in zip(items, items[len(ASKED) :], strict=False)]
    pairs = [(one, wrong) for one, wrong in pairs if not one.is_right(wrong)][:CALIBRATION]
    weights = []
    for number, one in enumerate(members):
        standing, judge = Standing(is_admitted=True), judge_of(one, question(items[0], 0))
        for task, wrong in pairs:
            case = Case(task.question, (task.answer, wrong), seed)
            right = [
                await judge.compare(case, Pair(0, 1), number) > 0.5,
                await judge.compare(case, Pair(1, 0), number) < 0.5,
            ]
            standing = seen(standing, "judging", sum(right) / 2)
        weights.append(max(0.0, 2 * standing.judging / (1 - 0.9 ** len(pairs)) - 1))
    return weights


def winner(votes: Sequence[Vote], count: int, weights: Sequence[float]) -> int:
    return fit(wins(votes, count, dict(enumerate(weights)))).order()[0]


def accuracies(asked: Sequence[Asked], names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    equal = [1.0] * len(names)
    models = [1.0 / len(HEATS)] * len(HEATS) + [1.0] * (len(names) - len(HEATS))
    ways = {
        "swarm, by reputation": lambda one: winner(one.votes, len(names), weights),
        "swarm, all alike": lambda one: winner(one.votes, len(names), equal),
        "swarm, a vote a model": lambda one: winner(one.votes, len(names), models),
        "majority": lambda one: majority(one.texts),
        "weighted vote": lambda one: weighted_vote(one.texts, weights),
        "likeliest": lambda one: most_likely([answer.logprobs for answer in one.answers]),
        "any member is right": lambda one: next((i for i, text in enumerate(one.texts) if one.task.is_right(text)), 0),
        **{name: (lambda one, i=i: i) for i, name in enumerate(names)},
    }
    return {
        name: sum(one.task.is_right(one.texts[choose(one)]) for one in asked) / len(asked)
        for name, choose in ways.items()
    }


async def injections(
    members: Sequence[Member], asked: Sequence[Asked], weights: Sequence[float], most: int
) -> tuple[int, int, float]:
    """(winners that became the injected answer, tried, accuracy lost in points): one injection into a losing answer."""
    changed = lost = tried = 0
    draw = random.Random(11)
    for number in range(most):
        one = asked[number % len(asked)]
        before = winner(one.votes, len(members), weights)
        others = [i for i, text in enumerate(one.texts) if i != before and not one.task.is_right(text)]
        if not others:
            continue
        victim = draw.choice(others)
        texts = list(one.texts)
        texts[victim] = injected(texts[victim])[number % 240]
        case = Case(one.task.question, tuple(texts), number % len(asked))
        after = winner(await votes_of(members, case, question(one.task, number)), len(members), weights)
        changed, tried = changed + (after == victim), tried + 1
        lost += one.task.is_right(one.texts[before]) - one.task.is_right(one.texts[after])
    return changed, tried, 100.0 * lost / max(1, tried)


async def by_letters(here: Here, items: Sequence[Task]) -> float:
    """Share of verdicts A or B of the default model that are right, both orders of known pairs."""
    judge, right = scoring_judge(scorer(here, None)), []
    for one, other in pairwise(items):
        if not one.is_right(other.answer):
            case = Case(one.question, (one.answer, other.answer), 1)
            right += [await judge.compare(case, Pair(0, 1), 0) > 0.5, await judge.compare(case, Pair(1, 0), 0) < 0.5]
    return sum(right) / len(right)


async def timing(members: Sequence[Member], items: Sequence[Task]) -> float:
    """Median of ranking time over answering time, whole rounds."""
    ratios: list[float] = []
    for number, task in enumerate(items):
        plain = [replace(one, ask=without_logprobs(one)) for one in members]
        rounds = swarm(plain, Rules(answer_s=None, judge_s=None, filters=False), lambda: 3)
        usages = [chunk.usage async for chunk in rounds(question(task, 1000 + number)) if chunk.usage is not None]
        ttft_s, duration_s = usages[-1].ttft_s, usages[-1].duration_s
        if ttft_s and duration_s:
            ratios.append((duration_s - ttft_s) / ttft_s)
    return sorted(ratios)[len(ratios) // 2]


def without_logprobs(one: Member) -> Any:
    return lambda request: replace(one.ask(request), sampling=replace(one.ask(request).sampling, logprobs=None))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--specialists", type=Path, default=Path(__file__).parent / "data" / "specialists")
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    count, most = (24, 48) if arguments.quick else (arguments.questions, 240)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(opened(arguments.model))
        general = Here(node.engine, node.language, node.engine.config.model)
        judge = likelihood_judge(hinted(general, HINT))  # one, because temperature changes no likelihood
        members = [member(f"default@{heat:g}", general, heat, HINT, judge) for heat in HEATS]
        for name in SPECIALISTS:
            small = await stack.enter_async_context(opened(arguments.specialists / name))
            here = Here(small.engine, small.language, small.engine.config.model)
            members.append(member(name, here, 0.0, "", likelihood_judge(hinted(here, ""))))
        names = [one.name for one in members]
        began = time.perf_counter()
        await ask(members, fresh(1, 1)[0], 0)  # pages are touched, kernels built
        weights = await calibrated(members, 500)
        asked = [await ask(members, task, number) for number, task in enumerate(fresh(count, 77))]
        found = accuracies(asked, names, weights)
        changed, tried, lost = await injections(members, asked, weights, most)
        letters = await by_letters(general, fresh(10 if arguments.quick else 40, 90))
        ratio = await timing(members, fresh(5 if arguments.quick else 15, 91))
        took = time.perf_counter() - began
    table(("way", "right"), [(name, f"{share:.3f}") for name, share in found.items()])
    print("weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True)))
    print(f"injections: {changed} of {tried} made the injected answer win; {lost:+.2f} points of accuracy lost")
    print(f"judging by letters, default model: {letters:.2f} of verdicts right")
    print(f"ranking 7 answers takes {ratio:.2f} times as long as producing them; all of it took {took:.0f} s")
    best = max(found[name] for name in names)
    ratios = {"points_over_majority": 100 * (found["swarm, by reputation"] - found["majority"]),
              "points_over_best_member": 100 * (found["swarm, by reputation"] - best)}  # fmt: skip
    rows = [{"way": name, "right": share} for name, share in found.items()]
    rows += [
        {
            "injections": tried,
            "changed": changed,
            "points_lost": lost,
            "letters": letters,
            "ranking_over_answering": ratio,
        }
    ]
    finish("swarm", rows, ratios, machine())


if __name__ == "__main__":
    asyncio.run(main())
