"""Random workloads with drafts on tiny pools: no slot is misread, and no draft is ever served to anybody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_scheduler_property import Workload

from shoal.engine.sequence import Sequence, Status

GUESS = 9
"""A token that only drafts hold here; those that turn out right are other tokens."""


class Drafting(Workload):
    """After each step a sequence may get a draft; after the next it is settled: some of it right, or none."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.acts.remove(self.shrink)
        self.weights.pop()
        self.certain: dict[Sequence, int] = {}
        self.num_settled = self.num_right = 0

    def step(self) -> None:
        self.draft()
        super().step()
        for seq, certain in self.certain.items():
            if seq.status is not Status.DONE and seq.num_drafted:
                self.settle(seq, certain)
        self.certain.clear()
        self.scheduler.check_integrity()

    def draft(self) -> None:
        for seq in self.alive:
            room = seq.limit - len(seq.tokens)
            if seq.status is Status.RUNNING and seq.num_pending == 1 and room > 1 and self.random.random() < 0.6:
                self.certain[seq] = len(seq.tokens)
                count = self.random.randint(1, min(room - 1, 6))
                num_right = self.random.randint(0, count)
                guess = [self.random.randrange(3) for _ in range(num_right)] + [GUESS] * (count - num_right)
                self.scheduler.append(seq, *guess)
                seq.num_drafted = count

    def continue_or_finish(self, seq: Sequence) -> None:
        if seq.num_drafted:
            self.settle(seq, self.certain[seq])
        super().continue_or_finish(seq)

    def settle(self, seq: Sequence, certain: int) -> None:
        """Right as far as it was computed and is no GUESS."""
        assert not self.served_guesses(), "a guess is served"
        right = certain
        while right < seq.num_computed and seq.tokens[right] != GUESS:
            right += 1
        self.scheduler.settle(seq, right)
        self.owed[seq] = min(self.owed[seq], right)
        self.num_settled += 1
        self.num_right += right - certain

    def served_guesses(self) -> int:
        return sum(GUESS in entry.tokens for entry in self.scheduler.tables.cache._by_id.values())


@pytest.mark.parametrize("shard", range(2))
def test_no_workload_with_drafts_misreads_a_slot_or_publishes_a_guess(shard: int) -> None:
    settled = right = preempted = 0
    for seed in range(shard * 150, shard * 150 + 150):
        workload = Drafting(seed)
        workload.run(50)
        assert not workload.served_guesses()
        settled, right = settled + workload.num_settled, right + workload.num_right
        preempted += workload.scheduler.num_preemptions
    assert min(settled, right, preempted) > 150, (settled, right, preempted)


def test_the_test_sees_a_published_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = 0
    for seed in range(40):
        workload = Drafting(seed)
        tables = workload.scheduler.tables

        def carelessly(seq: Sequence, publish: Callable[[Sequence], None] = tables.publish) -> None:
            drafted, seq.num_drafted = seq.num_drafted, 0
            publish(seq)
            seq.num_drafted = drafted

        monkeypatch.setattr(tables, "publish", carelessly)
        try:
            workload.run(50)
        except AssertionError as error:
            caught += "a guess is served" in str(error)
    assert caught > 5
