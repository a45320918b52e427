"""The `Session` seam over the engine's own scheduler: a session's tokens run in the same steps as requests'.

A session between calls is an idle sequence: it keeps its blocks until somebody needs them, and is then recomputed at
its next call. `score` and `hidden` run on a fork, so the context stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as List

import numpy as np

from shoal.core.errors import InvalidRequest, LocalError, ShoalError
from shoal.engine.adapters import Adapter
from shoal.engine.inbox import Command
from shoal.engine.mailbox import Mailbox
from shoal.engine.reading import Keep, Reading, keep_logprobs, keep_scores, keep_taps
from shoal.engine.sequence import Sequence, int_array
from shoal.engine.worker import Worker


class EngineSession:
    """Calls are answered one after the other. Its adapter counts as used until `drop`."""

    def __init__(
        self, worker: Worker, vocab_size: int, num_layers: int, limit: int, adapter: Adapter, priority: int = 0
    ) -> None:
        self._worker = worker
        self._vocab_size = vocab_size
        self._num_layers = num_layers
        self._limit = limit
        self._adapter = adapter
        self._priority = priority
        self._seq: Sequence | None = None
        self._logprobs: np.ndarray | None = None
        self._is_dropped = False
        self._lock = asyncio.Lock()

    @property
    def num_tokens(self) -> int:
        return len(self._seq.tokens) if self._seq is not None else 0

    async def append(self, tokens: List[int]) -> np.ndarray:
        """See the seam. No tokens: the log-probabilities again. ContextTooLong beyond the engine's limit."""
        async with self._lock:
            self._check(tokens)
            if tokens:
                self._logprobs = (await self._extend(tokens, keep_logprobs, 1))[-1]
            return self._known_logprobs().copy()

    async def read(self, tokens: List[int], keep: Keep, layer: int) -> np.ndarray:
        """Add tokens; what `keep` makes of their rows: logits, and the residual stream after `layer`.

        `keep` is called in the engine's thread between two steps, so everybody waits for it. What follows the context
        is not known afterwards: `append` of no tokens, and `score`, raise InvalidRequest until tokens are appended.
        """
        async with self._lock:
            self._check(tokens)
            self._check_layer(tokens, layer)
            rows = await self._extend(tokens, keep, len(tokens), layer)
            self._logprobs = None
            return rows

    async def fork(self) -> EngineSession:
        async with self._lock:
            self._check(())
            twin = EngineSession(
                self._worker, self._vocab_size, self._num_layers, self._limit, self._adapter, self._priority
            )
            twin._seq = await self._worker.call(self._twin)
            twin._logprobs = self._logprobs
            return twin

    async def score(self, tokens: List[int]) -> tuple[float, ...]:
        """See the seam. InvalidRequest before the first `append`: nothing predicts a first token."""
        async with self._lock:
            self._check(tokens)
            if not tokens:
                return ()
            first = float(self._known_logprobs()[tokens[0]])
            if len(tokens) == 1:
                return (first,)
            rest = await self._aside(tokens[:-1], keep_scores(tokens[1:], self.num_tokens + 1), -1)
            return (first, *rest.tolist())

    async def hidden(self, tokens: List[int], layer: int) -> np.ndarray:
        """See the seam. InvalidRequest for a layer the model does not have, or no tokens."""
        async with self._lock:
            self._check(tokens)
            self._check_layer(tokens, layer)
            return await self._aside(tokens, keep_taps, layer)

    async def drop(self) -> None:
        async with self._lock:
            if self._is_dropped:
                return
            self._is_dropped = True
            await self._worker.call_quietly(self._release)

    # ---- calls of the worker ----------------------------------------------------------------------------

    async def _extend(self, tokens: List[int], keep: Keep, num_rows: int, tap: int = -1) -> np.ndarray:
        """What `keep` makes of the last `num_rows` rows."""
        before = self.num_tokens
        seq = self._seq if self._seq is not None else self._new(tokens)
        reading = Reading(seq, keep, Mailbox(), is_temporary=False, undo_to=before)

        def begin() -> None:
            if before:
                self._worker.scheduler.append(seq, *tokens)
            seq.outputs_from, seq.tap = before + len(tokens) - num_rows, tap
            if not before:
                self._worker.scheduler.add(seq)
            self._worker.read(reading)

        rows = await self._await(begin, reading)
        self._seq = seq
        return rows

    async def _aside(self, tokens: List[int], keep: Keep, tap: int) -> np.ndarray:
        """Run `tokens` after the context, on a fork; one kept row for each."""
        context = self.num_tokens
        reading = Reading(self._new(tokens), keep, Mailbox())

        def begin() -> None:
            if context:
                reading.seq = self._fork_sequence()
            reading.seq.outputs_from, reading.seq.tap = context, tap
            if context:
                self._append_to_fork(reading.seq, tokens)
            else:
                self._worker.scheduler.add(reading.seq)
            self._worker.read(reading)

        return await self._await(begin, reading)

    async def _await(self, begin: Command, reading: Reading) -> np.ndarray:
        is_received = False
        try:
            await self._worker.call(begin)
            rows = np.asarray(await reading.mailbox.get())
            is_received = True
        finally:
            if not is_received:
                await self._worker.call_quietly(lambda: self._worker.take_back(reading))
        return rows

    # ---- in the worker's thread -------------------------------------------------------------------------

    def _fork_sequence(self) -> Sequence:
        assert self._seq is not None, "only a context can be forked"
        return self._worker.scheduler.fork(self._seq)

    def _append_to_fork(self, seq: Sequence, tokens: List[int]) -> None:
        try:
            self._worker.scheduler.append(seq, *tokens)
        except ShoalError:
            self._worker.scheduler.finish(seq)
            raise

    def _twin(self) -> Sequence | None:
        self._worker.adapters.share(self._adapter)
        return None if self._seq is None else self._fork_sequence()

    def _release(self) -> None:
        if self._seq is not None:
            self._worker.scheduler.finish(self._seq)
        self._worker.adapters.release(self._adapter)

    # ---- small things -----------------------------------------------------------------------------------

    def _new(self, tokens: List[int]) -> Sequence:
        adapter = self._adapter
        return Sequence(int_array(tokens), self._limit, adapter.namespace, self._priority, adapter=adapter.slot)

    def _known_logprobs(self) -> np.ndarray:
        if self._logprobs is None:
            raise InvalidRequest("expected a context: append at least one token first", "tokens")
        return self._logprobs

    def _check_layer(self, tokens: List[int], layer: int) -> None:
        if not 0 <= layer <= self._num_layers:
            raise InvalidRequest(f"expected a layer in 0 .. {self._num_layers}, found {layer}", "layer")
        if not tokens:
            raise InvalidRequest("expected at least one token, found none", "tokens")

    def _check(self, tokens: List[int]) -> None:
        if self._is_dropped:
            raise LocalError("this session was dropped")
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise InvalidRequest(f"token id {token} is outside the vocabulary of {self._vocab_size}", "prompt")
