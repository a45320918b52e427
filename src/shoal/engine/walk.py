"""The budget of one step, while the scheduler walks its sequences in the order of rank.

Each running sequence is promised one row and one output row, so a long prefill takes only what decoding leaves.
"""

from __future__ import annotations

from shoal.engine.plan import Entry, Plan, SchedulerConfig
from shoal.engine.sequence import Sequence


class Walk:
    """Grows `plan`. `promised` running sequences are still to be visited; `is_full` ends admissions."""

    def __init__(self, config: SchedulerConfig, promised: int) -> None:
        self.plan = Plan()
        self.is_full = False
        self._config = config
        self._promised = promised
        self._rows = config.max_batch_tokens
        self._outputs = config.max_outputs

    @property
    def has_budget(self) -> bool:
        return self._rows > 0 and self._outputs > 0 and len(self.plan.entries) < self._config.max_running

    def redeem(self) -> None:
        """A running sequence is visited, or preempted: its promise no longer binds."""
        self._promised -= 1

    def may_admit(self, seq: Sequence) -> bool:
        """Whether a waiting sequence could run now, as far as the budget goes. Not one preempted just now."""
        is_affordable = min(self._rows, self._outputs) > self._promised and self._has_same_tap(seq)
        return is_affordable and not self.is_full and seq not in self.plan.preempted

    def allowance(self, seq: Sequence) -> int:
        """Rows `seq` may have in this step: at least one if its tap fits the step's."""
        if not self._has_same_tap(seq):
            return 0
        rows = max(1, min(self._rows - self._promised, self._config.prefill_chunk))
        silent = max(0, seq.outputs_from - seq.num_computed)
        outputs = max(1, self._outputs - self._promised)
        pending = seq.num_pending
        if seq.stage is not None and not seq.stage.is_done:
            pending = min(pending, seq.stage.at - seq.num_computed)
        return min(pending, rows, silent + outputs)

    def take(self, seq: Sequence, count: int) -> None:
        """Plan the next `count` rows of `seq`."""
        num_outputs = max(0, seq.num_computed + count - max(seq.outputs_from, seq.num_computed))
        self.plan.entries.append(Entry(seq, seq.num_computed, count, num_outputs))
        if seq.tap >= 0:
            self.plan.tap = seq.tap
        if seq.stage is not None and seq.stage.is_apart:
            self.plan.is_split = True
        self._rows -= count
        self._outputs -= num_outputs

    def _has_same_tap(self, seq: Sequence) -> bool:
        return seq.tap < 0 or self.plan.tap in (-1, seq.tap)
