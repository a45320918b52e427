"""Approximated and whole sequences on tiny pools, against a memory that knows what each slot holds.

A slot remembers who computed it from what: whole prefixes, a draft's pass, or rows behind a compression. Before a row
counts, every slot attention would read for it is compared with what its sequence should see there; so a compressed
cache served as a whole one, a stale table or a lost copy is caught, whatever the preemptions.
"""

from __future__ import annotations

import random
from array import array

import numpy as np
import pytest

from shoal.core.errors import Overloaded
from shoal.core.request import Approximation
from shoal.engine.approximate.approximator import after_prompt
from shoal.engine.approximate.stage import Stage
from shoal.engine.batching import build_batch
from shoal.engine.plan import Plan, SchedulerConfig
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, Status

Mark = tuple[object, ...]


class Memory:
    """What each slot holds, by the name of what it should be."""

    def __init__(self, num_slots: int, size: int) -> None:
        self.slots: list[Mark | None] = [None] * num_slots
        self.size = size

    def slot(self, seq: Sequence, place: int) -> int:
        return seq.blocks[place // self.size] * self.size + place % self.size


def mark(seq: Sequence, position: int, num_dropped: int) -> Mark:
    """What the key and value of `position` are: of the whole model, a draft, or behind what was left by dropping."""
    prefix = tuple(seq.tokens[: position + 1])
    stage = seq.stage
    if stage is None or (position < stage.at and not stage.depth):
        return ("whole", prefix)
    if stage.depth:
        return ("draft", stage.depth, prefix)
    return ("after", num_dropped, None if stage.kept is None else tuple(stage.kept), prefix)


def seen(seq: Sequence, place: int) -> Mark:
    """What the slot of cache place `place` should hold."""
    stage = seq.stage
    if stage is not None and stage.dropped and stage.kept is not None and place < len(stage.kept):
        return mark(seq, int(stage.kept[place]), 0)
    budget = None if stage is None else stage.wanted.kv_budget
    due = 0 if stage is None or budget is None else max(0, stage.at - budget)
    return mark(seq, place + seq.num_dropped, due)


class Workload:
    def __init__(self, seed: int) -> None:
        self.random = r = random.Random(seed)
        most = r.randint(1, 4)
        self.config = SchedulerConfig(
            block_size=r.randint(1, 4), num_blocks=r.randint(8, 16), max_running=most, max_waiting=6,
            max_batch_tokens=r.randint(most, 12), prefill_chunk=r.randint(1, 8), max_outputs=most + 4,
            ageing_steps=r.randint(1, 20), prefix_cache=r.random() < 0.9,
        )  # fmt: skip
        self.scheduler = Scheduler(self.config)
        self.memory = Memory(self.config.num_blocks * self.config.block_size, self.config.block_size)
        self.alive: list[Sequence] = []
        self.acted = self.failed = 0

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.random.choices([self.add, self.step, self.drop], [2, 5, 1])[0]()
        for _ in range(4000):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "sequences are stuck"
        assert self.scheduler.tables.pool.num_used == 0

    def add(self) -> None:
        r, capacity = self.random, self.scheduler.capacity
        length = r.randint(1, min(12, max(1, capacity // 3)))
        tokens = [0] * r.randint(0, length)
        tokens += [r.randint(0, 1) for _ in range(length - len(tokens))]
        seq = Sequence(array("i", tokens), min(capacity, length + 6), stage=self.stage(length))
        if seq.stage is not None and seq.stage.depth:
            seq.outputs_from = length
        try:
            self.scheduler.add(seq)
            self.alive.append(seq)
        except Overloaded:
            pass

    def stage(self, length: int) -> Stage | None:
        """Like `Budgets.stage`: None, a draft's pass, or a pause behind the prompt."""
        r = self.random
        wish = Approximation(kv_budget=r.randint(1, length), prompt_budget=r.choice([None, r.randint(1, length)]),
                             core_neurons=r.choice([None, 0.5]))  # fmt: skip
        if r.random() < 0.4:
            return None
        if wish.prompt_budget is not None and wish.prompt_budget < length:
            return Stage(wish, r.choice([1, length]), depth=1)
        return after_prompt(Stage(wish, length), length)

    def drop(self) -> None:
        if self.alive:
            self.scheduler.finish(self.alive.pop(self.random.randrange(len(self.alive))))

    # ---- the approximator, in a few lines ------------------------------------------------------------------

    def act(self) -> None:
        paused, self.scheduler.paused = self.scheduler.paused, []
        for seq in paused:
            if seq.is_paused and seq.status is Status.RUNNING:
                done = self.shorten(seq) if seq.stage and seq.stage.depth else self.compress(seq)
                self.acted += done
                self.failed += not done
                if not done:
                    self.scheduler.restart(seq)

    def shorten(self, seq: Sequence) -> bool:
        stage = seq.stage
        assert stage is not None
        spare = self.scheduler.borrow(seq, self.random.randint(0, 2))
        if spare is None:
            return False
        self.scribble(spare)
        self.scheduler.give_back(spare)
        budget = stage.wanted.prompt_budget or 1
        kept = sorted(self.random.sample(range(len(seq.tokens)), budget))
        self.scheduler.restart(seq)
        seq.tokens, seq.outputs_from = array("i", [seq.tokens[i] for i in kept]), budget - 1
        seq.stage = after_prompt(stage, budget)
        return True

    def compress(self, seq: Sequence) -> bool:
        stage = seq.stage
        assert stage is not None
        stage.is_done, budget = True, stage.wanted.kv_budget or stage.at
        if budget >= stage.at:
            stage.slot = 0
            return True
        target = self.scheduler.borrow(seq, -(-budget // self.config.block_size))
        if target is None:
            return False
        self.scribble(target)
        if stage.kept is None:
            stage.kept = np.array(sorted(self.random.sample(range(stage.at), budget)))
        for place, position in enumerate(stage.kept.tolist()):
            there = target[place // self.config.block_size] * self.config.block_size + place % self.config.block_size
            self.memory.slots[there] = self.memory.slots[self.memory.slot(seq, position)]
        self.scheduler.tables.replace(seq, target, stage.at - budget)
        return True

    def scribble(self, blocks: list[int]) -> None:
        """Passes write to borrowed blocks: nobody may read them afterwards."""
        for block in blocks:
            for offset in range(self.config.block_size):
                self.memory.slots[block * self.config.block_size + offset] = ("scribble",)

    # ---- steps ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.act()
        self.scheduler.check_integrity()
        plan = self.scheduler.schedule()
        if not plan.entries:
            assert not self.alive, "nothing runs"
            return
        self.execute(plan)
        self.scheduler.commit(plan)
        self.scheduler.check_integrity()
        for seq, *_, num_outputs in plan.entries:
            if num_outputs and seq.status is not Status.DONE:
                self.go_on(seq)

    def go_on(self, seq: Sequence) -> None:
        if len(seq.tokens) == seq.limit or self.random.random() < 0.1:
            self.alive.remove(seq)
            self.scheduler.finish(seq)
            return
        if self.random.random() < 0.1 and len(self.alive) < 8 and seq.is_paused:
            self.alive.append(child := self.scheduler.fork(seq))
            self.scheduler.append(child, 7)
        self.scheduler.append(seq, self.random.randint(0, 2))

    def execute(self, plan: Plan) -> None:
        size, slots = self.config.block_size, self.memory.slots
        for source, target in plan.copies:
            slots[target * size : (target + 1) * size] = slots[source * size : (source + 1) * size]
        batch = build_batch(plan, size)
        places = batch.positions if batch.rope_positions is None else batch.rope_positions
        for index, (seq, start, count, _) in enumerate(plan.entries):
            rows = slice(batch.query_start[index], batch.query_start[index + 1])
            assert places[rows].tolist() == list(range(start, start + count))
            assert (batch.positions[rows] == places[rows] - seq.num_dropped).all()
            assert batch.context_lens[index] == start + count - seq.num_dropped
            for row, position in zip(batch.slots[rows].tolist(), range(start, start + count), strict=True):
                slots[row] = mark(seq, position, seq.num_dropped)
        for seq, start, count, _ in plan.entries:
            for place in range(start + count - seq.num_dropped):
                found, expected = slots[self.memory.slot(seq, place)], seen(seq, place)
                assert found == expected, f"place {place}: attention would read {found}, expected {expected}"


@pytest.mark.parametrize("shard", range(3))
def test_no_workload_reads_what_is_not_its_own(shard: int) -> None:
    acted = failed = preempted = 0
    for seed in range(shard * 300, shard * 300 + 300):
        workload = Workload(seed)
        workload.run(60)
        acted, failed = acted + workload.acted, failed + workload.failed
        preempted += workload.scheduler.num_preemptions
    assert acted > 1000
    assert failed > 0
    assert preempted > 150


def shares_compressed_blocks(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish what lies behind the pause as if it were whole."""
    monkeypatch.setattr(Stage, "num_shareable", property(lambda stage: 10**6))
    monkeypatch.setattr(Sequence, "num_dropped", property(lambda seq: 0))


def computes_past_the_pause(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recompute the answer together with the prompt, on whole keys."""
    schedule = workload.scheduler.schedule

    def without_pause() -> Plan:
        for seq in workload.alive:
            if seq.stage is not None and not seq.stage.depth and len(seq.tokens) > seq.stage.at:
                seq.stage.is_done = True
        return schedule()

    monkeypatch.setattr(workload.scheduler, "schedule", without_pause)


def publishes_drafts(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "num_shareable", property(lambda stage: stage.at))


@pytest.mark.parametrize("fault", [shares_compressed_blocks, computes_past_the_pause, publishes_drafts])
def test_the_memory_catches(fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = 0
    for seed in range(100):
        workload = Workload(seed)
        monkeypatch.setattr(workload.scheduler, "check_integrity", lambda: None)
        with monkeypatch.context() as patch:
            fault(workload, patch)  # type: ignore[operator]
            try:
                workload.run(60)
            except (AssertionError, KeyError, IndexError, ValueError):
                caught += 1
    assert caught >= 5, f"caught in {caught} of 100 workloads"
