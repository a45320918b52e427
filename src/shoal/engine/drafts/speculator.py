"""What the worker calls around a step: drafts go in before it is planned, and what came of them is learned after it.

    propose --drafts appended--> [ schedule, run, commit, hand out (verify) ] --> learn

Rules that stay true in this file:
- a sequence holds draft tokens only between `propose` and `learn` of one step;
- drafts never displace anybody: they take spare rows, outputs and blocks of a step, or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as List
from dataclasses import dataclass

from shoal.engine.drafts.draft import Draft, Drafter, Want
from shoal.engine.drafts.policy import Policy, Record
from shoal.engine.plan import Plan
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, Status

MAX_TOKENS = 48
"""Of one sequence's draft in one step."""


@dataclass(slots=True)
class DraftCounters:
    """checks: steps of a sequence in which a draft was checked; each made one token more than were accepted."""

    checks: int = 0
    tokens: int = 0
    accepted: int = 0


@dataclass(slots=True)
class _Pending:
    draft: Draft
    num_certain: int  # tokens of the sequence before its draft
    num_drafted: int


class Speculator:
    """One engine's drafter, its policy, and which sequences have drafts in this step."""

    def __init__(self, drafter: Drafter, scheduler: Scheduler, policy: Policy) -> None:
        self.drafter = drafter
        self.counters = DraftCounters()
        self._scheduler = scheduler
        self._policy = policy
        self._records: dict[Sequence, Record] = {}
        self._pending: dict[Sequence, _Pending] = {}

    def propose(self, decoding: Iterable[Sequence]) -> None:
        """Append drafts to those of `decoding` (sequences of jobs past their prompt) that are ready for one."""
        # approximated ones go without: their steps run apart from others, and what is dropped depends on the steps
        ready = [seq for seq in decoding if seq.status is Status.RUNNING and seq.num_pending == 1 and seq.stage is None]
        room = self._room(len(ready))
        wants = [Want(seq, min(seq.limit - len(seq.tokens) - 1, room, MAX_TOKENS)) for seq in ready] if room > 0 else []
        wants = [want for want in wants if want.most > 0]
        rows, tokens = len(ready), float(len(ready))
        for want, draft in zip(wants, self.drafter.propose(wants, self._policy.times) if wants else (), strict=True):
            record = self._records.setdefault(want.seq, Record())
            length, expected = self._policy.length(draft, record, rows, tokens)
            length = min(length, room)
            if length:
                self._append(want.seq, draft, length)
                rows, tokens, room = rows + length, tokens + expected, room - length

    def learn(self, plan: Plan, step_s: float) -> None:
        """The step is over and handed out: take what it says about times and chances; drafts it left out are undone."""
        if all(entry.num_rows == entry.num_outputs for entry in plan.entries):
            self._policy.times.learn(plan.num_tokens, step_s)
        computed = {entry.seq: entry.num_rows - 1 for entry in plan.entries if entry.seq in self._pending}
        for seq, pending in self._pending.items():
            if seq.status is Status.DONE:
                continue
            if (num_computed := computed.get(seq, 0)) > 0 and seq.num_drafted == 0:
                self._count(seq, pending, num_computed)
            elif seq.num_drafted:
                self._scheduler.settle(seq, pending.num_certain)
        self._pending.clear()

    def count_last(self, seq: Sequence, num_made: int) -> None:
        """`seq` ended in this step, with `num_made` tokens of it."""
        if (pending := self._pending.get(seq)) is not None:
            self.counters.checks += 1
            self.counters.tokens += pending.num_drafted
            self.counters.accepted += num_made - 1

    def forget(self, seq: Sequence, output: List[int]) -> None:
        """`seq` is over."""
        self._records.pop(seq, None)
        self.drafter.forget(seq, output)

    def _room(self, num_ready: int) -> int:
        """Rows that drafts may take: what the step has beside one for each sequence, and blocks nobody asks for."""
        config, pool = self._scheduler.config, self._scheduler.tables.pool
        busy = self._scheduler.num_running
        spare = pool.num_available - 2 * busy - self._scheduler.num_waiting
        return min(config.max_outputs - busy, config.max_batch_tokens - busy, spare * config.block_size)

    def _append(self, seq: Sequence, draft: Draft, length: int) -> None:
        self._pending[seq] = _Pending(draft, len(seq.tokens), length)
        self._scheduler.append(seq, *draft.tokens[:length])
        seq.num_drafted = length

    def _count(self, seq: Sequence, pending: _Pending, num_computed: int) -> None:
        num_right = len(seq.tokens) - pending.num_certain - 1
        self.counters.checks += 1
        self.counters.tokens += num_computed
        self.counters.accepted += num_right
        self._policy.learn(pending.draft, num_computed, num_right, self._records[seq])
        self.drafter.learn(seq, num_right)
