"""What a verifier says of an answer: the likeliest tokens and the returned token's gap at the positions drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from shoal.core.errors import LocalError, RemoteError
from shoal.core.receipt import SEGMENT_TOKENS
from shoal.engine.reading import Outputs, log_softmax
from shoal.engine.sampler import SamplerState
from shoal.trust.check_rerun import Question, Readable, Rerunner, gap
from shoal.trust.distribution import Claims, Ranks


async def claims_of(rerunner: Rerunner, question: Question, positions: Sequence[int], num_ranks: int) -> Claims:
    """One prefill of prompt and tokens, with logits at `positions` (rising, of the output). Errors as of sessions."""
    whole = [*question.prompt, *question.tokens]
    state, accepted, at = await asyncio.to_thread(rerunner.state, question), 0, 0
    session, ranks = await rerunner.session(), []
    try:
        for position in positions:
            row = len(question.prompt) - 1 + position
            await _skip(rerunner, session, whole[at:row])
            is_broken = _accept(state, question.tokens[accepted:position])
            keep = _Keep(state, question.tokens[position], num_ranks, is_broken)
            ranks.append(_ranks(await session.read(whole[row : row + 1], keep, rerunner.num_layers)))
            accepted, at = position, row + 1
            await rerunner.pause()
    finally:
        await session.drop()
    return Claims(tuple(ranks))


async def _skip(rerunner: Rerunner, session: Readable, tokens: Sequence[int]) -> None:
    for start in range(0, len(tokens), SEGMENT_TOKENS):
        await session.append(tokens[start : start + SEGMENT_TOKENS])
        await rerunner.pause()


def _accept(state: SamplerState, tokens: Sequence[int]) -> bool:
    """Whether the grammar forbids one of them: then nothing from there on was sampled."""
    try:
        for token in tokens:
            state.accept(token)
    except (LocalError, RemoteError):
        return True
    return False


class _Keep:
    """A `Keep`, of one row: (1, 1 + 2 num_ranks) gap, tokens, log-probabilities."""

    def __init__(self, state: SamplerState, token: int, num_ranks: int, is_broken: bool) -> None:
        self._state, self._token, self._num_ranks, self._is_broken = state, token, num_ranks, is_broken

    def __call__(self, outputs: Outputs) -> np.ndarray:
        row = outputs.logits[0]
        found = 1.0 if self._is_broken else gap(row, self._state, self._token)
        logprobs = log_softmax(row)
        best = np.argpartition(-logprobs, min(self._num_ranks, len(row) - 1))[: self._num_ranks]
        best = best[np.lexsort((best, -logprobs[best]))]
        return np.concatenate([[found], best, logprobs[best]])[None]


def _ranks(rows: np.ndarray) -> Ranks:
    values = rows[0]
    count = (len(values) - 1) // 2
    tokens = values[1 : 1 + count].astype(int)
    return Ranks(tuple(tokens.tolist()), tuple(values[1 + count :].tolist()), float(values[0]))
