"""A drafter for each request: the judge's word is kept to, every drafter is told what it must be, no answer changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as List
from dataclasses import dataclass, field

import pytest
from drafts_harness import TIMES, KnowingDrafter, ask_all, tokens_of

from shoal.core.clock import VirtualClock
from shoal.core.request import Request, Sampling
from shoal.engine.drafts.chosen import MIN_TOKENS, Case, ChosenDrafter
from shoal.engine.drafts.draft import NOTHING, Draft, Want
from shoal.engine.sequence import Sequence, int_array


@dataclass
class Listed:
    """Gives methods in turn, and remembers what it was told."""

    methods: List[str]
    seen: list[Case] = field(default_factory=list)
    told: list[tuple[Case, str, float]] = field(default_factory=list)

    def choose(self, case: Case) -> str:
        self.seen.append(case)
        return self.methods[(len(self.seen) - 1) % len(self.methods)]

    def observe(self, case: Case, method: str, tokens_per_s: float) -> None:
        self.told.append((case, method, tokens_per_s))

    def choices(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, len(self.seen)) for name in self.methods)

    def why(self) -> str:
        return "it was its turn"


class Constant(KnowingDrafter):
    """Drafts its own number; counts what it learned."""

    def __init__(self, number: int) -> None:
        super().__init__([], 0.0)
        self.number = number
        self.learned: list[int] = []

    def propose(self, wants: List[Want], times: object) -> List[Draft]:
        return [Draft((self.number,) * min(3, want.most), (0.5,) * 3, str(self.number), 1) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        self.learned.append(num_accepted)


def seq_of(*tokens: int) -> Sequence:
    return Sequence(int_array(tokens), limit=100)


def test_each_request_keeps_its_drafter_and_speeds_are_told() -> None:
    clock, one, two = VirtualClock(), Constant(1), Constant(2)
    judge = Listed(["one", "off", "two"])
    drafter = ChosenDrafter({"one": one, "two": two, "off": None}, judge, clock)
    seqs = [seq_of(5, 6), seq_of(7), seq_of(8, 9, 10)]
    wants = [Want(seq, 9) for seq in seqs]
    for _ in range(2):
        assert [draft.source for draft in drafter.propose(wants, TIMES)] == ["1", NOTHING.source, "2"]
    assert judge.seen == [Case((5, 6), 98, 3, 0), Case((7,), 99, 3, 0), Case((8, 9, 10), 97, 3, 0)]
    for seq in seqs:
        drafter.learn(seq, 2)
    assert (one.learned, two.learned) == ([2], [2])
    asyncio.run(clock.advance(2.0))
    for seq in seqs:
        drafter.forget(seq, list(range(21)))
    assert [(method, speed) for _, method, speed in judge.told] == [("one", 10.0), ("off", 10.0), ("two", 10.0)]
    assert all(len(each.forgotten) == 3 for each in (one, two))
    drafter.close()
    assert one.is_closed
    assert two.is_closed


def test_short_answers_and_unknown_sequences_say_nothing() -> None:
    clock, judge = VirtualClock(), Listed(["off"])
    drafter = ChosenDrafter({"off": None}, judge, clock)
    seq = seq_of(1)
    drafter.forget(seq, list(range(50)))
    drafter.propose([Want(seq, 5)], TIMES)
    asyncio.run(clock.advance(1.0))
    drafter.forget(seq, list(range(MIN_TOKENS - 1)))
    drafter.learn(seq, 0)
    assert judge.told == []
    drafter.propose([Want(seq, 5)], TIMES)
    drafter.forget(seq, list(range(50)))  # no time has passed: no speed either
    assert judge.told == []


@pytest.mark.parametrize("methods", [["off"], ["knows"], ["knows", "off", "lies"]])
def test_answers_are_those_without_drafts_whoever_is_chosen(methods: list[str]) -> None:
    requests = [
        Request(f"r{number}", "tiny", tuple(range(20 + number)), Sampling(seed=number, max_tokens=24, ignore_eos=True))
        for number in range(4)
    ]
    plain, _ = ask_all(requests, None)
    truths = [[*request.prompt, *tokens_of(answer)] for request, answer in zip(requests, plain, strict=True)]
    judge = Listed(methods)
    drafters = {"knows": KnowingDrafter(truths, 0.1), "lies": KnowingDrafter(truths, 0.9), "off": None}
    found, stats = ask_all(requests, ChosenDrafter(drafters, judge, VirtualClock()))
    assert [tokens_of(answer) for answer in found] == [tokens_of(answer) for answer in plain]
    assert stats.drafter == "learned"
    assert stats.choice_why == "it was its turn"
    assert dict(stats.choices) == dict.fromkeys(methods, 4)
    assert (stats.draft_accepted_total > 0) == ("knows" in methods)
