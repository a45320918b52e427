"""What the engine keeps of a choice for whoever will sign its answer: activations as fingerprints, and what went in.

It does not know what a receipt is. `take`, given to the engine, turns 32 rows into a few bytes; without it requests
for receipts are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shoal.core.receipt import SEGMENT_TOKENS, Evidence

Take = Callable[[np.ndarray, np.ndarray, Sequence[int]], bytes]
"""(rows (n, hidden), raw logits (n,) of the chosen tokens, those tokens) -> fingerprint; see `trust.fingerprint`."""


class Recorder:
    """Of one choice. `see` each row that chose a token, in order; accepted drafts count, refused ones are not seen."""

    def __init__(
        self, take: Take, prompt: tuple[int, ...], given: tuple[int, ...], seed: int, hidden_size: int
    ) -> None:
        """`given`: tokens of the output that the request came with."""
        self._take = take
        self._prompt, self._seed = prompt, seed
        self._tokens, self._begins = list(given), len(given)
        self._rows = np.empty((SEGMENT_TOKENS, hidden_size), np.float32)
        self._logits = np.empty(SEGMENT_TOKENS, np.float32)
        self._fingerprints: list[bytes] = []

    def see(self, row: np.ndarray, logits: np.ndarray, token: int) -> None:
        """`row` (hidden,), the raw `logits` (vocab,) it led to, and the token chosen by them."""
        at = (len(self._tokens) - self._begins) % SEGMENT_TOKENS
        self._rows[at], self._logits[at] = row, logits[token]
        self._tokens.append(token)
        if at == SEGMENT_TOKENS - 1:
            self._close(SEGMENT_TOKENS)

    def evidence(self) -> Evidence:
        """Of the whole choice, once: nothing is seen afterwards."""
        if left := (len(self._tokens) - self._begins) % SEGMENT_TOKENS:
            self._close(left)
        return Evidence(self._prompt, tuple(self._tokens), self._begins, self._seed, tuple(self._fingerprints))

    def _close(self, count: int) -> None:
        self._fingerprints.append(self._take(self._rows[:count], self._logits[:count], self._tokens[-count:]))
