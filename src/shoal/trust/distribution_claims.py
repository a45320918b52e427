"""What a verifier says of an answer: the likeliest tokens and the returned token's gap at the positions drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from shoal.core.errors import LocalError, RemoteError
from shoal.core.receipt import SEGMENT_TOKENS
from shoal.engine.reading import Outputs, log_softmax
from shoal.engine.sampler import SamplerState
from shoal.trust.check_rerun import Question, Rerunner, gap
from shoal.trust.distribution import Claims, Ranks


async def claims_of(rerunner: Rerunner, question: Question, positions: Sequence[int], num_ranks: int) -> Claims:
    """One prefill of prompt and tokens up to the last of `positions` (rising, of the output). Errors as of sessions."""
    keep = _Keep(question, await asyncio.to_thread(rerunner.state, question), positions, num_ranks)
    whole = [*question.prompt, *question.tokens]
    first, last = keep.rows[0], keep.rows[-1] + 1
    session, found = await rerunner.session(), []
    try:
        for start in range(0, first, SEGMENT_TOKENS):
            await session.append(whole[start : min(first, start + SEGMENT_TOKENS)])
            await rerunner.pause()
        for start in range(first, last, SEGMENT_TOKENS):
            part = whole[start : min(last, start + SEGMENT_TOKENS)]
            found.append(await session.read(part, keep, rerunner.num_layers))
            await rerunner.pause()
    finally:
        await session.drop()
    return Claims(tuple(_ranks(row) for row in np.concatenate(found)))


class _Keep:
    """A `Keep`: (drawn rows among these, 1 + 2 num_ranks) gap, tokens, log-probabilities."""

    def __init__(self, question: Question, state: SamplerState, positions: Sequence[int], num_ranks: int) -> None:
        self._tokens, self._state, self._num_ranks = question.tokens, state, num_ranks
        self._before = len(question.prompt) - 1
        self.rows = [self._before + position for position in positions]
        self._wanted = frozenset(self.rows)
        self._is_broken = False

    def __call__(self, outputs: Outputs) -> np.ndarray:
        places = [place for place in range(len(outputs.logits)) if outputs.start + place in self._wanted]
        rows = [self._row(outputs.logits[place], outputs.start + place - self._before) for place in places]
        return np.array(rows).reshape(len(rows), 1 + 2 * self._num_ranks)

    def _row(self, logits: np.ndarray, position: int) -> np.ndarray:
        self._accept(self._tokens[self._state.num_tokens : position])
        found = 1.0 if self._is_broken else gap(logits, self._state, self._tokens[position])
        logprobs = log_softmax(logits)
        best = np.argpartition(-logprobs, min(self._num_ranks, len(logits) - 1))[: self._num_ranks]
        best = best[np.lexsort((best, -logprobs[best]))]
        return np.concatenate([[found], best, logprobs[best]])

    def _accept(self, tokens: Sequence[int]) -> None:
        """A token that the grammar forbids: from there on nothing was sampled."""
        try:
            for token in tokens if not self._is_broken else ():
                self._state.accept(token)
        except (LocalError, RemoteError):
            self._is_broken = True


def _ranks(row: np.ndarray) -> Ranks:
    count = (len(row) - 1) // 2
    return Ranks(tuple(row[1 : 1 + count].astype(int).tolist()), tuple(row[1 + count :].tolist()), float(row[0]))
