"""Another drafter for each request, whichever a judge expects to be fastest; what it gave is told to the judge.

The judge knows nothing of drafters, and this file nothing of how it decides: the node brings them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from shoal.core.clock import Clock
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Drafter, Want
from shoal.engine.sequence import Sequence

MIN_TOKENS = 8
"""Answers shorter than this say too little of how fast they came."""


class Case(NamedTuple):
    """What is known of a request when its first token is there. `running`: requests that make tokens beside it."""

    tokens: List[int]
    most: int
    running: int
    num_cached: int


class Judge(Protocol):
    """Called from the worker's thread; must be quick."""

    def choose(self, case: Case) -> str:
        """The name of the method for this request."""
        ...

    def observe(self, case: Case, method: str, tokens_per_s: float) -> None: ...

    def choices(self) -> tuple[tuple[str, int], ...]:
        """Each method, and how often it was chosen. Called from any thread."""
        ...

    def why(self) -> str:
        """The last choice and its reason, in words. Called from any thread."""
        ...


@dataclass(slots=True)
class _Chosen:
    case: Case
    method: str
    began: float


class ChosenDrafter:
    """Owns its drafters; a method whose drafter is None drafts nothing."""

    name = "learned"

    def __init__(self, drafters: Mapping[str, Drafter | None], judge: Judge, clock: Clock) -> None:
        self._drafters, self.judge, self._clock = dict(drafters), judge, clock
        self._chosen: dict[Sequence, _Chosen] = {}

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        drafts = [NOTHING] * len(wants)
        methods = [self._method(want, len(wants)) for want in wants]
        for method, drafter in self._drafters.items():
            mine = [index for index, chosen in enumerate(methods) if chosen == method]
            if drafter is not None and mine:
                proposed = drafter.propose([wants[index] for index in mine], times)
                for index, draft in zip(mine, proposed, strict=True):
                    drafts[index] = draft
        return drafts

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        drafter = self._drafters[self._chosen[seq].method] if seq in self._chosen else None
        if drafter is not None:
            drafter.learn(seq, num_accepted)

    def forget(self, seq: Sequence, output: List[int]) -> None:
        """Every drafter sees every answer: past answers are worth as much whoever guessed them."""
        for drafter in self._drafters.values():
            if drafter is not None:
                drafter.forget(seq, output)
        chosen = self._chosen.pop(seq, None)
        if chosen is not None and len(output) >= MIN_TOKENS:
            elapsed = self._clock.monotonic() - chosen.began
            if elapsed > 0:
                self.judge.observe(chosen.case, chosen.method, (len(output) - 1) / elapsed)

    def close(self) -> None:
        for drafter in self._drafters.values():
            if drafter is not None:
                drafter.close()

    def _method(self, want: Want, running: int) -> str:
        chosen = self._chosen.get(want.seq)
        if chosen is None:
            seq = want.seq
            case = Case(tuple(seq.tokens), seq.limit - len(seq.tokens), running, max(0, seq.num_cached))
            chosen = self._chosen[seq] = _Chosen(case, self.judge.choose(case), self._clock.monotonic())
        return chosen.method
