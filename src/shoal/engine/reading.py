"""One call of a session: which rows of the coming steps it wants, and what to keep of each."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, field

import numpy as np

from shoal.engine.mailbox import Mailbox
from shoal.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Outputs:
    """Rows a step produced for one sequence, at positions start, start + 1, ...: views valid until the next step.

    logits (rows, vocab), taps (rows, hidden) or no rows where the step tapped nothing. best: the first largest logit of
    each row where the runner knows it, -1 where it does not.
    """

    start: int
    logits: np.ndarray
    taps: np.ndarray
    best: List[int] = ()

    def last(self) -> Outputs:
        """Of the last row alone."""
        return Outputs(self.start + len(self.logits) - 1, self.logits[-1:], self.taps[-1:], self.best[-1:])


Keep = Callable[[Outputs], np.ndarray]


@dataclass(slots=True, eq=False)
class Reading:
    """`keep` turns each step's outputs into an array of its own; their concatenation goes to `mailbox` at the end.

    A reading of a temporary sequence finishes it. Cancelled or failed, any other goes back to `undo_to` tokens.
    `is_done` however it ended, `is_whole` if every row came.
    """

    seq: Sequence
    keep: Keep
    mailbox: Mailbox
    is_temporary: bool = True
    undo_to: int = 0
    is_done: bool = False
    is_whole: bool = False
    parts: list[np.ndarray] = field(default_factory=list)

    def receive(self, outputs: Outputs) -> bool:
        """Whether that was all."""
        self.parts.append(self.keep(outputs))
        self.is_done = self.is_whole = self.seq.num_pending == 0
        return self.is_done

    @property
    def result(self) -> np.ndarray:
        return np.concatenate(self.parts)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float32 log-probabilities (nats) of each row."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total), np.float32)


def keep_logprobs(outputs: Outputs) -> np.ndarray:
    return log_softmax(outputs.logits)


def keep_taps(outputs: Outputs) -> np.ndarray:
    return outputs.taps.copy()


def keep_scores(tokens: List[int], first: int) -> Keep:
    """Log-probability, at the position before it, of each of `tokens`; the first of them has position `first`."""
    wanted = np.array(tokens, np.int64)

    def keep(outputs: Outputs) -> np.ndarray:
        rows = len(outputs.logits)
        begin = outputs.start + 1 - first
        return np.asarray(log_softmax(outputs.logits)[np.arange(rows), wanted[begin : begin + rows]])

    return keep
