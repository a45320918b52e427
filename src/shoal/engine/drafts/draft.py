"""What drafters are asked and answer."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from shoal.engine.drafts.costs import StepTimes
from shoal.engine.sequence import Sequence


class Want(NamedTuple):
    """A draft of at most `most` tokens behind the last token of `seq`; all its tokens are certain."""

    seq: Sequence
    most: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A path; token i is right with probability `probs[i]` as the drafter sees it (all before it right as well).

    source  which drafter, and which part of it, guessed: acceptance is learned for each apart.
    match   tokens of the context that the guess rests on; 0 where that says nothing.
    """

    tokens: tuple[int, ...] = ()
    probs: tuple[float, ...] = ()
    source: str = ""
    match: int = 0

    @property
    def score(self) -> float:
        """Tokens expected to be right."""
        return sum(self.probs)


NOTHING = Draft()


class Drafter(Protocol):
    """Called from the worker's thread. It reads sequences and keeps what it likes about them; it never changes one."""

    @property
    def name(self) -> str:
        """In words, for people."""
        ...

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        """A draft for each, `NOTHING` where there is none. `times`: what a step costs, for whom guessing costs too."""
        ...

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """The last draft for `seq` was checked: so many of its tokens were right."""
        ...

    def forget(self, seq: Sequence, output: List[int]) -> None:
        """`seq` is over, and `output` is what it answered. Called once for every sequence that made tokens."""
        ...

    def close(self) -> None:
        """The engine stops."""
        ...
