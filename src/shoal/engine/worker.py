"""The thread that steps. It alone touches scheduler, runner and adapters; others send it functions to call.

    inbox --commands between steps--> [ expire, schedule, run, commit, hand out ] --one wake-up per loop--> mailboxes

Rules that stay true in this file:
- every job and reading ends exactly once: its own end, an error posted once, or a cancellation;
- what ends leaves nothing behind: no sequence, no block, no use of an adapter;
- if the runner fails, everything fails with the same error, and nothing is accepted any more.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from typing import Any

import numpy as np

from shoal.core.clock import Clock
from shoal.core.errors import DeadlineExceeded, LocalError, ShoalError, Unavailable
from shoal.engine.adapters import Adapters
from shoal.engine.approximate.approximator import Approximator
from shoal.engine.approximate.runner import approximation_of
from shoal.engine.batching import build_batch
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import Drafter
from shoal.engine.drafts.policy import Policy
from shoal.engine.drafts.speculator import Speculator
from shoal.engine.inbox import Command, Inbox, Letter
from shoal.engine.job import Desk, Job
from shoal.engine.mailbox import Courier, Mailbox
from shoal.engine.plan import Plan
from shoal.engine.reading import Outputs, Reading
from shoal.engine.runner import Runner, best_of
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence
from shoal.engine.stats import Counters

_log = logging.getLogger(__name__)


class Worker:
    """One engine's thread and what it owns. Commands and `step` are for that thread alone."""

    def __init__(self, scheduler: Scheduler, runner: Runner, clock: Clock, drafter: Drafter | None = None) -> None:
        self.scheduler = scheduler
        self.adapters = Adapters(runner.max_adapters)
        self.counters = Counters()
        self._runner = runner
        self._clock = clock
        self._courier = Courier()
        self._speculator = None if drafter is None else Speculator(drafter, scheduler, Policy(StepTimes()))
        self._desk = Desk(scheduler, self._courier, {}, speculator=self._speculator)
        network = approximation_of(runner)
        self._best = best_of(runner)
        self._approximator = None if network is None else Approximator(runner, network, scheduler)
        self._idle_waiters: list[Mailbox] = []
        self._drop_waiters: list[Mailbox] = []
        self._deadlines: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._inbox = Inbox()
        self._thread = threading.Thread(target=self._loop, name="shoal-engine", daemon=True)

    @property
    def failure(self) -> ShoalError | None:
        """Why nothing more is accepted: stopped, or the runner failed. None while things are well."""
        return self._inbox.refusal

    @property
    def drafting(self) -> Speculator | None:
        return self._speculator

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread to end, after `stop` or a failure."""
        self._thread.join()

    async def call(self, command: Command) -> Any:
        """Run `command` in the worker's thread, between steps, and return or raise what it does."""
        mailbox = Mailbox()
        self._inbox.put(command, mailbox)
        return (await mailbox.get())[0]

    async def call_quietly(self, command: Command) -> None:
        """`call` for cleaning up: once the engine has stopped or failed there is nothing left to clean."""
        try:
            await self.call(command)
        except ShoalError as error:
            _log.debug("nothing to clean up: %s", error)

    # ---- commands, called in the worker's thread --------------------------------------------------------

    def admit(self, job: Job) -> None:
        """Queue a job. Raises what the scheduler and the adapters raise, and then nothing of it remains."""
        adapter = self.adapters.acquire(job.request.adapter)
        job.seq.adapter, job.seq.namespace = adapter.slot, adapter.namespace
        try:
            self.scheduler.add(job.seq)
        except ShoalError:
            self.adapters.release(adapter)
            raise
        job.adapter = adapter  # from here on `cancel` gives it back
        self._desk.owners[job.seq] = job
        if job.request.deadline is not None:
            heapq.heappush(self._deadlines, (job.request.deadline, next(self._order), job))

    def read(self, reading: Reading) -> None:
        """Wait for the outputs of a sequence the scheduler already has."""
        self._desk.owners[reading.seq] = reading

    def cancel(self, owner: Job | Reading) -> None:
        """End a job or a reading without a word. Harmless if it has ended."""
        if owner.is_done:
            return
        owner.is_done = True
        for seq in [seq for seq, other in self._desk.owners.items() if other is owner]:
            del self._desk.owners[seq]
            if self._speculator is not None and isinstance(owner, Job) and seq in owner.active:
                self._speculator.forget(seq, owner.active[seq].state.tokens)
            if isinstance(owner, Job) or owner.is_temporary:
                self.scheduler.finish(seq)
            else:
                self._undo(owner)
        if isinstance(owner, Job):
            self.adapters.release(owner.adapter)

    def take_back(self, reading: Reading) -> None:
        """End a reading whose result nobody took: it may have been complete when its caller gave up."""
        if not reading.is_done:
            self.cancel(reading)
        elif reading.is_whole and not reading.is_temporary:
            self._undo(reading)

    def _undo(self, reading: Reading) -> None:
        if reading.undo_to:
            self.scheduler.truncate(reading.seq, reading.undo_to)
        else:
            self.scheduler.finish(reading.seq)

    def fail(self, owner: Job | Reading, error: Exception) -> None:
        """End a job or a reading with an error."""
        if not owner.is_done:
            self.cancel(owner)
            self._courier.post(owner.mailbox, error)

    def load_adapter(self, name: str, adapter: Any) -> None:
        """Give `name` what `runner.read_adapter` made."""
        self.adapters.load(name, lambda slot: self._runner.load_adapter(slot, adapter))

    def drop_adapter(self, name: str, mailbox: Mailbox) -> None:
        """Post to `mailbox` once the adapter's slot is empty, or why it will not be."""

        def free(slot: int) -> None:
            self._runner.drop_adapter(slot)
            self._drop_waiters.remove(mailbox)
            self._courier.post(mailbox, None)

        self._drop_waiters.append(mailbox)
        try:
            self.adapters.drop(name, free)
        except ShoalError:
            self._drop_waiters.remove(mailbox)
            raise

    def tell_when_idle(self, mailbox: Mailbox) -> None:
        """Post once nothing is left to do."""
        self._idle_waiters.append(mailbox)

    def stop(self) -> None:
        """Fail what is left and end the thread."""
        self._refuse(Unavailable("the engine was stopped"), Unavailable("the engine was stopped"))

    # ---- steps ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """One forward over what the scheduler picks; False if there is nothing to do."""
        began = self._clock.monotonic()
        self._expire(began)
        self._approximate()
        if self._speculator is not None:
            self._speculator.propose(self._decoding())
        plan = self.scheduler.schedule()
        if not plan.entries:
            return False
        if plan.copies:
            self._runner.copy_blocks(plan.copies)
        logits, taps, best = self._run(plan)
        self.scheduler.commit(plan)
        self._desk.now = self._clock.monotonic()
        self.counters.add_step(plan, self._desk.now - began)
        self._hand_out(plan, Outputs(0, logits, taps, best), began)
        if self._speculator is not None:
            self._speculator.learn(plan, self._clock.monotonic() - began)
        return True

    def _approximate(self) -> None:
        """See to the sequences that paused in the last step. Without approximation this is two looks at nothing."""
        if self._approximator is not None:
            if self.scheduler.paused:
                self._approximator.act()
            if self._approximator.has_slices:
                self._approximator.sweep()

    def _run(self, plan: Plan) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Of the plan's output rows: logits, taps where the plan wants them, and `best` where the runner knows it."""
        if plan.is_split and self._approximator is not None:
            return *self._approximator.run(plan), []
        logits = self._runner.run(build_batch(plan, self.scheduler.config.block_size))
        best = [] if self._best is None else self._best().tolist()
        return logits, self._runner.taps() if plan.tap >= 0 else logits[:0], best

    def _decoding(self) -> list[Sequence]:
        """Sequences whose prompt is done: those that can have a draft."""
        return [seq for seq, owner in self._desk.owners.items() if isinstance(owner, Job) and owner.active]

    def _hand_out(self, plan: Plan, out: Outputs, began: float) -> None:
        row = 0
        for seq, start, num_rows, num_outputs in plan.entries:
            owner = self._desk.owners[seq]
            if isinstance(owner, Job) and owner.started_at is None:
                owner.started_at = began
                self.counters.add_prompt(seq, owner.num_prompt)
            if num_outputs:
                rows = slice(row, row + num_outputs)
                first = start + num_rows - num_outputs
                self._give(owner, seq, Outputs(first, out.logits[rows], out.taps[rows], out.best[rows]))
                row += num_outputs

    def _give(self, owner: Job | Reading, seq: Sequence, outputs: Outputs) -> None:
        """Let the owner have its rows. An error in its own grammar or text ends it alone."""
        try:
            if isinstance(owner, Job):
                self.counters.generation_tokens += owner.receive(seq, outputs, self._desk)
                if owner.is_done:
                    self.adapters.release(owner.adapter)
            elif owner.receive(outputs):
                self._end_reading(owner)
        except ShoalError as error:
            self.fail(owner, error)
        except Exception as error:
            _log.exception("request failed")
            self.fail(owner, LocalError(f"internal error while making the answer: {error}"))

    def _end_reading(self, reading: Reading) -> None:
        del self._desk.owners[reading.seq]
        if reading.is_temporary:
            self.scheduler.finish(reading.seq)
        self._courier.post(reading.mailbox, reading.result)

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, job = heapq.heappop(self._deadlines)
            self.fail(job, DeadlineExceeded("the request's deadline passed before its answer was complete"))

    # ---- the thread -------------------------------------------------------------------------------------

    def _loop(self) -> None:
        is_busy = False
        while self.failure is None:
            self._obey(self._inbox.take(wait=not is_busy))
            try:
                is_busy = self.failure is None and self.step()
            except Exception as error:
                _log.exception("the runner failed")
                text = f"the engine failed: {error}"
                self._refuse(LocalError(text), Unavailable(f"{text}; restart it"))
            self._announce_idle()
            self._courier.deliver()
        if self._speculator is not None:
            self._speculator.drafter.close()
        self._runner.close()

    def _obey(self, commands: list[Letter]) -> None:
        for command, mailbox in commands:
            try:
                self._courier.post(mailbox, self.failure or (command(),))
            except Exception as error:  # whoever asked is told; steps are not touched
                self._courier.post(mailbox, error)
        if commands:
            self._courier.deliver()

    def _announce_idle(self) -> None:
        if self._idle_waiters and not self._desk.owners:
            for mailbox in self._idle_waiters:
                self._courier.post(mailbox, None)
            self._idle_waiters.clear()

    def _refuse(self, now: ShoalError, later: ShoalError) -> None:
        """End everything with `now`; whoever asks from here on gets `later`."""
        rest = self._inbox.close(later)
        for owner in list(self._desk.owners.values()):
            self.fail(owner, now)
        for mailbox in [*(mailbox for _, mailbox in rest), *self._drop_waiters]:
            self._courier.post(mailbox, later)
        self._drop_waiters.clear()  # of sessions that are still open: nobody steps any more who could end them
