"""The asyncio front of one model: `generate` is the `Generate` seam, `session` gives the `Session` seam.

It prepares (template, tokens, grammar) in helper threads, hands work to the worker and relays what comes back. Closing
the iterator of `generate` cancels: it returns when no block of the request is left, within one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock, SystemClock
from shoal.core.errors import BadConfig, Overloaded, Unavailable
from shoal.core.request import Request
from shoal.core.service import EngineStats
from shoal.engine.adapters import Adapter
from shoal.engine.approximate.budgets import Budgets
from shoal.engine.approximate.runner import approximation_of
from shoal.engine.compiling import Compiler
from shoal.engine.drafts.draft import Drafter
from shoal.engine.evidence import Take
from shoal.engine.helpers import Helpers
from shoal.engine.job import Job
from shoal.engine.language import Language
from shoal.engine.mailbox import Mailbox
from shoal.engine.plan import SchedulerConfig
from shoal.engine.prepare import Preparer, Witness
from shoal.engine.runner import Runner
from shoal.engine.scheduler import Scheduler
from shoal.engine.session import EngineSession
from shoal.engine.worker import Worker


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine must know beside its parts.

    model           the name requests ask for.
    context_length  most positions of a sequence; the cache may allow fewer (see `Engine.limit`).
    num_layers      of the network: the last layer embeddings are taken from.
    scheduler       its num_blocks and block_size are the runner's.
    device, kernels for `stats`, in words.
    """

    model: str
    context_length: int
    num_layers: int
    scheduler: SchedulerConfig
    device: str = ""
    kernels: str = ""


class Engine:
    """Accepts work from its construction until `drain` or `stop`. Owns the runner, and closes it."""

    def __init__(
        self,
        config: EngineConfig,
        runner: Runner,
        language: Language,
        clock: Clock | None = None,
        drafter: Drafter | None = None,
        take: Take | None = None,
    ) -> None:
        """With a `drafter` steps check its guesses; answers are the same without, if slower (see `engine.verify`).

        take  makes fingerprints of activations for requests that want a receipt; without it they are refused.
        """
        scheduler = config.scheduler
        if (scheduler.num_blocks, scheduler.block_size) != (runner.num_blocks, runner.block_size):
            raise BadConfig("scheduler", f"expected the runner's {runner.num_blocks} blocks of {runner.block_size}")
        self.config = config
        self._language = language
        self._vocab_size = runner.vocab_size
        self._clock = clock or SystemClock()
        self._runner = runner
        self._worker = Worker(Scheduler(scheduler), runner, self._clock, drafter)
        budgets = Budgets(approximation_of(runner), scheduler.num_blocks, scheduler.block_size)
        witness = None if take is None else Witness(take, config.num_layers, runner.hidden_size)
        self._preparer = Preparer(
            config.model, language, self.limit, scheduler.max_running, runner.vocab_size, budgets, witness
        )
        self._helpers = Helpers()
        self._compiler = Compiler(language)
        self._is_draining = False
        self._worker.start()

    @property
    def limit(self) -> int:
        """Most tokens in a sequence: the model's context, or the whole cache where that is smaller."""
        return min(self.config.context_length, self._worker.scheduler.capacity)

    @property
    def vocab_size(self) -> int:
        """Logits in a row; a tokenizer may know fewer tokens."""
        return self._vocab_size

    # ---- requests ---------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """See `core.seams`. InvalidRequest, ContextTooLong, ModelNotFound: the request's fault.

        Overloaded: the queue is full. Unavailable: draining, stopped or failed. DeadlineExceeded. LocalError: the
        runner failed while the request ran.
        """
        submitted_at = self._clock.monotonic()
        self._check_open()
        matcher = await self._compiler.matcher(request)
        prepare = partial(self._preparer.prepare, request, matcher)
        prepared = await self._helpers.run(request.priority, prepare)
        job = Job(
            request,
            prepared.seq,
            prepared.choices,
            Mailbox(),
            submitted_at,
            prepared.echo,
            num_tokens=prepared.num_made,
        )
        if prepared.max_tokens == 0:
            for chunk in job.only_echo(self._clock.monotonic()):
                yield chunk
            return
        try:
            await self._worker.call(partial(self._worker.admit, job))
            is_last = False
            while not is_last:
                chunk = await job.mailbox.get()
                is_last = chunk.usage is not None
                yield chunk
        finally:
            if not job.is_done:
                await self._worker.call_quietly(partial(self._worker.cancel, job))

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> tuple[np.ndarray, int]:
        """Mean of the last layer's residual stream over each input's tokens, L2-normalised, and the tokens read.

        float32 (len(inputs), hidden_size). A language model's own states: fine for near-duplicates and clustering,
        not as good as a model trained for retrieval. Raises as `generate` does.
        """
        self._check_open()
        prompts = await asyncio.to_thread(self._embedding_prompts, inputs)
        seats = asyncio.Semaphore(self.config.scheduler.max_running)
        means = await asyncio.gather(*(self._mean_state(prompt, seats) for prompt in prompts))
        vectors = np.stack(means) if means else np.zeros((0, 0), np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32), sum(map(len, prompts))

    def _embedding_prompts(self, inputs: Sequence[str | tuple[int, ...]]) -> list[list[int]]:
        prompts = [self._language.encode(item) if isinstance(item, str) else list(item) for item in inputs]
        for prompt in prompts:
            self._preparer.check_tokens(prompt, "input")
        return prompts

    async def _mean_state(self, prompt: list[int], seats: asyncio.Semaphore) -> np.ndarray:
        async with seats:
            session = await self.session()
            try:
                rows = await session.hidden(prompt, self.config.num_layers)
            finally:
                await session.drop()
            return np.asarray(rows.mean(axis=0))

    async def session(self, adapter: str | None = None, priority: int = 0) -> EngineSession:
        """An empty session, whose calls run behind requests of a lower `priority`. ModelNotFound: no such adapter."""
        self._check_open()
        acquired: Adapter = await self._worker.call(partial(self._worker.adapters.acquire, adapter))
        return EngineSession(self._worker, self._vocab_size, self.config.num_layers, self.limit, acquired, priority)

    # ---- adapters ---------------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return self._worker.adapters.names

    async def load_adapter(self, name: str, path: str | Path) -> None:
        """Load a PEFT folder: read in a helper thread, put into its slot between two steps.

        BadWeights, Unsupported, InvalidRequest (name taken), Unavailable (all slots are, or the engine ends meanwhile).
        """
        if (reason := self.not_ready()) is not None:
            raise Unavailable(reason)
        await self._worker.call(partial(self._worker.adapters.check, name))
        try:
            adapter = await asyncio.to_thread(self._runner.read_adapter, path)
        except Exception:
            if self._worker.failure is not None:  # a runner that was closed under the reader has its own words for it
                raise self._worker.failure from None
            raise
        await self._worker.call(partial(self._worker.load_adapter, name, adapter))

    async def unload_adapter(self, name: str) -> None:
        """The name is gone at once; returns when the last request or session that uses it has ended."""
        mailbox = Mailbox()
        await self._worker.call(partial(self._worker.drop_adapter, name, mailbox))
        await mailbox.get()

    # ---- life -------------------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        worker = self._worker
        config = self.config
        return worker.counters.snapshot(
            worker.scheduler, config.device, config.kernels, self._is_draining, worker.drafting
        )

    def not_ready(self) -> str | None:
        """None while requests are accepted, else the reason in words."""
        if self._worker.failure is not None:
            return str(self._worker.failure)
        return "the engine is draining" if self._is_draining else None

    async def drain(self) -> None:
        """Refuse new work, let what was accepted end, then stop."""
        self._is_draining = True
        idle = Mailbox()
        await self._worker.call_quietly(partial(self._worker.tell_when_idle, idle))
        if self._worker.failure is None:
            await idle.get()
        await self.stop()

    async def stop(self) -> None:
        """Fail what is left with Unavailable, end the thread and close the runner. Twice is harmless."""
        self._is_draining = True
        self._compiler.close()
        await self._worker.call_quietly(self._worker.stop)
        await asyncio.to_thread(self._worker.join)
        self._helpers.close()

    def _check_open(self) -> None:
        if (reason := self.not_ready()) is not None:
            raise Unavailable(reason)
        if (scheduler := self._worker.scheduler).is_full:
            raise Overloaded(f"{scheduler.num_waiting} requests are waiting already; try again later")
