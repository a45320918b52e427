"""Penalties for repeating: they touch the logits of tokens that occurred, never the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from shoal.core.request import Sampling


class Penalties:
    """Which tokens occurred and how often, kept as sparse arrays: entry i is token `_ids[i]`.

    For a token in the prompt or the output: logit / r where positive, logit * r where negative (r is the repetition
    penalty; CTRL, Keskar et al. 2019, section 4.1). Then, for a token in the output: minus frequency * occurrences,
    minus presence.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocab_size: int) -> None:
        self._repetition = np.float32(sampling.repetition_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        self.is_active = bool(self._repetition != 1 or self._frequency or self._presence)
        known = np.unique(np.asarray(prompt if self._repetition != 1 else (), np.int64))
        self._ids = known[(known >= 0) & (known < vocab_size)]
        self._counts = np.zeros(len(self._ids), np.float32)  # occurrences in the output
        self._in_prompt = len(self._ids)  # the first entries are the prompt's
        self._entry = {token: entry for entry, token in enumerate(self._ids.tolist())}

    def add(self, token: int) -> None:
        """The output grew by `token`."""
        if not self.is_active:
            return
        entry = self._entry.setdefault(token, len(self._entry))
        if entry >= len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros(entry + 64, np.int64)))
            self._counts = np.concatenate((self._counts, np.zeros(entry + 64, np.float32)))
        self._ids[entry] = token
        self._counts[entry] += 1

    def remove(self, token: int) -> None:
        """Undo one `add(token)`."""
        if self.is_active:
            self._counts[self._entry[token]] -= 1

    def apply(self, logits: np.ndarray) -> None:
        """Change `logits`, float32 (vocab,), in place."""
        size = len(self._entry)
        ids, counts = self._ids[:size], self._counts[:size]
        values = logits[ids]
        occurs = counts > 0
        if self._repetition != 1:
            repeated = np.where(values > 0, values / self._repetition, values * self._repetition)
            values = np.where(occurs | (np.arange(size) < self._in_prompt), repeated, values)
        logits[ids] = values - self._frequency * counts - self._presence * occurs

    def fork(self) -> Penalties:
        twin = copy(self)
        twin._ids, twin._counts, twin._entry = self._ids.copy(), self._counts.copy(), self._entry.copy()
        return twin
