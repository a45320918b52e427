"""The scheduler, driven by random workloads on tiny pools, against a memory that knows what it holds.

Every executed row writes its whole prefix (namespace and tokens) into its slot; copies copy. Before a row counts as
executed, every slot attention would read for it is compared with the prefix expected there. A scheduler that shares,
evicts, copies or rolls back wrongly makes some sequence read another's keys and values, and is caught here.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import pytest

from shoal.core.errors import Overloaded
from shoal.engine.plan import Plan, SchedulerConfig
from shoal.engine.prefix_cache import Entry, PrefixCache
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, Status

Slot = tuple[str, tuple[int, ...]]


class Memory:
    """What each slot holds: the namespace and the whole prefix up to the token whose key and value it is."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._size = config.block_size
        self._slots: list[Slot | None] = [None] * (config.num_blocks * config.block_size)

    def execute(self, plan: Plan) -> None:
        for source, target in plan.copies:
            for offset in range(self._size):
                self._slots[target * self._size + offset] = self._slots[source * self._size + offset]
        for seq, start, count, _ in plan.entries:
            for position in range(start, start + count):
                self._slots[self._slot(seq, position)] = (seq.namespace, tuple(seq.tokens[: position + 1]))
        for seq, start, count, _ in plan.entries:  # after all writes: a row must not disturb another's
            for position in range(start + count):
                expected = (seq.namespace, tuple(seq.tokens[: position + 1]))
                found = self._slots[self._slot(seq, position)]
                assert found == expected, f"position {position}: attention would read {found}, expected {expected}"

    def _slot(self, seq: Sequence, position: int) -> int:
        return seq.blocks[position // self._size] * self._size + position % self._size


class Workload:
    """Random clients of one scheduler; `check` is called after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        r = self.random
        max_running = r.randint(1, 5)
        self.config = SchedulerConfig(
            block_size=r.randint(1, 4), num_blocks=r.randint(4, 12), max_running=max_running,
            max_batch_tokens=r.randint(max_running, 12), max_waiting=r.randint(1, 6), prefill_chunk=r.randint(1, 8),
            max_outputs=r.randint(max_running, 8), ageing_steps=r.randint(1, 20), soft_blocks=r.choice([0, 1, 3]),
        )  # fmt: skip
        self.scheduler = Scheduler(self.config)
        self.memory = Memory(self.config)
        self.alive: list[Sequence] = []
        self.owed: dict[Sequence, int] = {}
        self.acts = [self.add, self.step, self.fork, self.drop, self.shrink]
        self.weights = [r.randint(1, 4), 5, r.randint(0, 2), r.randint(0, 2), r.randint(0, 2)]
        self.branching = r.choice([0.0, 0.3, 0.5])  # between the next two: a fork, then each side its own token

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.random.choices(self.acts, self.weights)[0]()
        self.drain()

    def add(self) -> None:
        r, capacity = self.random, self.scheduler.capacity
        length = r.randint(1, min(capacity, 14))
        tokens = [0] * r.randint(0, length)  # many prompts share a prefix of zeros
        tokens += [r.randint(0, 1) for _ in range(length - len(tokens))]
        seq = Sequence(array("i", tokens), r.randint(length, capacity), r.choice(["", "lora"]), r.randint(0, 2))
        if r.random() < 0.2:
            seq.outputs_from = r.randint(0, length - 1)
        if r.random() < 0.2:
            seq.tap = r.randint(0, 1)
        try:
            self.scheduler.add(seq)
        except Overloaded:
            assert self.scheduler.num_waiting + self.scheduler.num_running >= (
                self.config.max_waiting + self.config.max_running
            )
            return
        self.alive.append(seq)
        self.owed[seq] = seq.outputs_from

    def fork(self) -> None:
        if self.alive:
            self.branch(self.random.choice(self.alive))

    def branch(self, seq: Sequence) -> Sequence:
        child = self.scheduler.fork(seq)
        self.alive.append(child)
        self.owed[child] = self.owed[seq]
        return child

    def drop(self) -> None:
        if self.alive:
            seq = self.alive.pop(self.random.randrange(len(self.alive)))
            self.scheduler.finish(seq)
            assert not seq.blocks

    def shrink(self) -> None:
        if self.alive:
            seq = self.random.choice(self.alive)
            keep = self.random.randint(1, len(seq.tokens))
            self.scheduler.truncate(seq, keep)
            self.owed[seq] = min(self.owed[seq], keep)

    def step(self) -> None:
        plan = self.scheduler.schedule()
        self.check_budget(plan)
        self.memory.execute(plan)
        for seq, start, count, num_outputs in plan.entries:
            due = max(0, start + count - max(start, self.owed[seq]))
            assert num_outputs == due, f"{num_outputs} outputs planned, {due} owed"
            self.owed[seq] = max(self.owed[seq], start + count)
        self.scheduler.commit(plan)
        self.scheduler.check_integrity()
        for seq, *_ in plan.entries:
            if not seq.num_pending:
                self.continue_or_finish(seq)
        self.scheduler.check_integrity()

    def continue_or_finish(self, seq: Sequence) -> None:
        choice = self.random.random()
        if len(seq.tokens) == seq.limit or choice < 0.15:
            self.alive.remove(seq)
            self.scheduler.finish(seq)
        elif choice < 0.9:  # the rest stays idle, as a session between calls does
            if choice < self.branching:
                self.grow(self.branch(seq))
            self.grow(seq)

    def grow(self, seq: Sequence) -> None:
        room = seq.limit - len(seq.tokens)
        self.scheduler.append(seq, *self.random.choices(range(3), k=self.random.randint(1, min(room, 3))))

    def check_budget(self, plan: Plan) -> None:
        config = self.config
        assert plan.num_tokens <= config.max_batch_tokens
        assert len(plan.entries) <= config.max_running
        assert sum(entry.num_outputs for entry in plan.entries) <= config.max_outputs
        assert all(0 < entry.num_rows <= config.prefill_chunk for entry in plan.entries)
        assert len({entry.seq.tap for entry in plan.entries} - {-1}) <= 1
        assert len({id(entry.seq) for entry in plan.entries}) == len(plan.entries)
        assert not {entry.seq for entry in plan.entries} & set(plan.preempted)

    def drain(self) -> None:
        """Without new arrivals everything pending finishes, and then every block is free or cached."""
        self.branching = 0.0
        for _ in range(4000):
            for seq in [seq for seq in self.alive if seq.status is Status.IDLE]:
                self.alive.remove(seq)
                self.scheduler.finish(seq)
            if not self.alive:
                break
            self.step()
        assert not self.alive, "sequences are stuck"
        assert self.scheduler.tables.pool.num_used == 0


@pytest.mark.parametrize("shard", range(4))
def test_no_workload_reads_a_slot_that_is_not_its_own(shard: int) -> None:
    totals = [0, 0]
    for seed in range(shard * 500, shard * 500 + 500):
        workload = Workload(seed)
        workload.run(60)
        totals[0] += workload.scheduler.num_preemptions
        totals[1] += len(workload.scheduler.tables.cache)
    assert min(totals) > 500, f"the workloads no longer preempt and cache: {totals}"


# ---- the checker itself: each of these faults is a real engine's bug, and must be seen ----------------------


def publishes_early(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish a block whose tokens are known, though only its beginning has been computed."""
    publish, size = scheduler.tables.publish, scheduler.config.block_size

    def rounded_up(seq: Sequence) -> None:
        computed = seq.num_computed
        seq.num_computed = max(computed, min(len(seq.blocks), len(seq.tokens) // size) * size)
        publish(seq)
        seq.num_computed = computed

    monkeypatch.setattr(scheduler.tables, "publish", rounded_up)
    monkeypatch.setattr(scheduler.tables, "_unpublish", lambda block: not scheduler.tables.pool.is_kept(block))


def skips_copies(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = scheduler.schedule

    def without_copies() -> Plan:
        plan = schedule()
        plan.copies.clear()
        return plan

    monkeypatch.setattr(scheduler, "schedule", without_copies)


def never_copies(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write into shared blocks."""
    monkeypatch.setattr(scheduler.tables, "_own_last", lambda seq, copies: True)


def trusts_the_hash(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a weak hash of the tokens for the tokens."""
    cache = scheduler.tables.cache
    get: Callable[..., Entry | None] = PrefixCache.get

    def weak(parent: int | str, tokens: tuple[int, ...]) -> Entry | None:
        flipped = (1 - tokens[0], *tokens[1:])
        return get(cache, parent, tokens) or get(cache, parent, flipped)

    monkeypatch.setattr(cache, "get", weak)


def forgets_the_namespace(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    key = scheduler.tables.key

    def without(seq: Sequence, index: int) -> tuple[int | str, tuple[int, ...]]:
        parent, tokens = key(seq, index)
        return (parent if isinstance(parent, int) else ""), tokens

    match = scheduler.tables.cache.match
    monkeypatch.setattr(scheduler.tables, "key", without)
    monkeypatch.setattr(scheduler.tables.cache, "match", lambda namespace, tokens, size: match("", tokens, size))


def forgets_to_roll_back(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncate the tokens, keep counting them as computed."""

    def truncate(seq: Sequence, num_tokens: int) -> None:
        cut = len(seq.tokens) - num_tokens
        for index in range(len(seq.tokens) - cut, len(seq.tokens)):
            seq.tokens[index] = 1 - seq.tokens[index]

    monkeypatch.setattr(scheduler, "truncate", truncate)


def serves_evicted_blocks(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand out cached blocks without telling the prefix cache."""
    monkeypatch.setattr(scheduler.tables.pool, "_on_evict", lambda block: None)


FAULTS = [publishes_early, skips_copies, never_copies, trusts_the_hash, forgets_the_namespace, forgets_to_roll_back,
          serves_evicted_blocks]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_memory_catches(fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    caught = 0
    for seed in range(100):
        workload = Workload(seed)
        monkeypatch.setattr(workload.scheduler, "check_integrity", lambda: None)  # by what is read, not by the books
        fault(workload.scheduler, monkeypatch)
        try:
            workload.run(60)
        except AssertionError as error:
            caught += "attention would read" in str(error)
        except KeyError:
            pass  # the fault broke the books before anything was read
    assert caught >= 5, f"a scheduler with this fault passes: caught in {caught} of 100 workloads"
