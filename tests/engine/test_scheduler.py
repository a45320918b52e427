"""Policy: budgets, order, fairness, preemption. What memory holds is checked in test_scheduler_property.py."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shoal.core.errors import BadConfig, ContextTooLong, InvalidRequest, Overloaded
from shoal.engine.plan import Plan, SchedulerConfig
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, Status, int_array

fresh = random.Random(0)


def scheduler(**options: int) -> Scheduler:
    return Scheduler(SchedulerConfig(**{"block_size": 4, "num_blocks": 64, **options}))


def seq_of(length: int, limit: int | None = None, **fields: Any) -> Sequence:
    """A sequence whose tokens nobody else has."""
    return Sequence(int_array(fresh.choices(range(2**30), k=length)), limit or length + 16, **fields)


def step(scheduler: Scheduler) -> Plan:
    """One step; every sequence that is up to date gets a token."""
    plan = scheduler.schedule()
    scheduler.commit(plan)
    scheduler.check_integrity()
    for entry in plan.entries:
        if not entry.seq.num_pending:
            if len(entry.seq.tokens) < entry.seq.limit:
                scheduler.append(entry.seq, fresh.randrange(2**30))
            else:
                scheduler.finish(entry.seq)
    return plan


def rows(plan: Plan) -> dict[Sequence, int]:
    return {entry.seq: entry.num_rows for entry in plan.entries}


def test_decoding_goes_on_while_a_long_prompt_is_prefilled_in_chunks() -> None:
    it = scheduler(max_batch_tokens=10, max_running=8, prefill_chunk=10)
    short = [seq_of(2) for _ in range(3)]
    for seq in short:
        it.add(seq)
    step(it)
    long = seq_of(30)
    it.add(long)
    for _ in range(4):
        plan = step(it)
        assert all(rows(plan)[seq] == 1 for seq in short)
        assert rows(plan)[long] == min(7, 30 - 7 * _)
        assert plan.num_tokens <= 10


def test_a_chunk_owes_an_output_only_at_its_end() -> None:
    it = scheduler(prefill_chunk=4)
    it.add(seq_of(10))
    assert [step(it).entries[0].num_outputs for _ in range(4)] == [0, 0, 1, 1]


def test_all_outputs_are_owed_where_asked_for_within_the_limit() -> None:
    it = scheduler(max_outputs=3, max_running=2)
    it.add(seq_of(10, outputs_from=4))
    found = [step(it).entries[0][1:] for _ in range(3)]
    assert found == [(0, 7, 3), (7, 3, 3), (10, 1, 1)]


def test_first_come_first_served_and_better_priority_first() -> None:
    it = scheduler(max_running=1, max_batch_tokens=64)
    late, early, urgent = seq_of(3), seq_of(3), seq_of(3, priority=-1)
    for seq in (early, late, urgent):
        it.add(seq)
    order = []
    while it.num_waiting or it.num_running:
        order += [entry.seq for entry in step(it).entries if entry.seq not in order]
    assert order == [urgent, early, late]


def test_nobody_starves_behind_a_stream_of_better_priority() -> None:
    it = scheduler(max_running=1, ageing_steps=10, max_waiting=50)
    poor = seq_of(2, 3, priority=1)
    it.add(poor)
    count = 0
    while poor.status is not Status.DONE and count < 100:
        count += 1
        it.add(seq_of(2, 3))
        step(it)
        step(it)
    assert count <= 12, "one level of priority is a head start of ten steps, not more"


def test_a_session_that_never_stops_does_not_starve_others() -> None:
    it = scheduler(max_running=2, max_batch_tokens=4, prefill_chunk=4)
    greedy = seq_of(4, limit=250)
    it.add(greedy)
    it.commit(it.schedule())
    others = [seq_of(9, 10) for _ in range(4)]
    for seq in others:
        it.add(seq)
    for _ in range(40):
        if not greedy.num_pending:
            it.schedule()  # finds it idle
            it.append(greedy, *fresh.choices(range(2**30), k=4))
        plan = it.schedule()
        it.commit(plan)
        for entry in plan.entries:
            if entry.seq is not greedy and not entry.seq.num_pending:
                it.finish(entry.seq)
    assert all(seq.status is Status.DONE for seq in others)


def test_preemption_takes_the_latest_and_the_first_always_proceeds() -> None:
    it = scheduler(num_blocks=8)  # 32 positions
    first, second = seq_of(12, 32), seq_of(12, 32)
    it.add(first)
    it.add(second)
    preempted: list[Sequence] = []
    while first.status is not Status.DONE:
        plan = step(it)
        assert first in rows(plan)
        preempted += plan.preempted
    assert preempted
    assert set(preempted) == {second}
    assert it.num_preemptions == len(preempted)
    while second.status is not Status.DONE:
        assert step(it).entries


def test_a_preempted_sequence_comes_back_mostly_from_the_cache() -> None:
    it = scheduler(num_blocks=10, max_running=4)
    seq = seq_of(24, 40)
    it.add(seq)
    step(it)
    urgent = seq_of(20, 21, priority=-1)
    it.add(urgent)
    assert step(it).preempted == [seq]
    while urgent.status is not Status.DONE:
        step(it)
    plan = step(it)
    assert plan.entries[0].start > 0
    assert seq.num_cached == 0, "what it finds after a preemption is its own, not a hit"


def test_idle_sequences_lose_their_blocks_first_the_longest_idle_before_others() -> None:
    it = scheduler(num_blocks=6)
    idle = [seq_of(8, 24) for _ in range(3)]
    for seq in idle:
        it.add(seq)
        it.commit(it.schedule())
        it.schedule()
    it.add(seq_of(9, 9))
    it.commit(it.schedule())
    assert [bool(seq.blocks) for seq in idle] == [False, False, True]
    assert it.num_preemptions == 0
    it.append(idle[0], 1)
    assert idle[0].status is Status.WAITING
    assert idle[0] in rows(step(it))


def test_the_same_prefix_is_computed_once_by_those_who_come_together() -> None:
    it = scheduler(prefill_chunk=8)
    one = seq_of(20)
    two = Sequence(int_array(one.tokens), 40)
    other = seq_of(5)
    for seq in (one, two, other):
        it.add(seq)
    assert rows(step(it)) == {one: 8, other: 5}
    assert two not in rows(step(it))
    plan = step(it)
    assert (rows(plan)[one], rows(plan)[two]) == (4, 4)
    assert two.num_cached == 16, "all but the last block, whose last position owes an output"


def test_forks_share_blocks_and_copy_only_the_partial_one() -> None:
    it = scheduler()
    root = seq_of(10, 40)
    it.add(root)
    it.commit(it.schedule())
    twins = [it.fork(root) for _ in range(2)]
    assert it.tables.pool.num_used == 3
    for seq in (root, *twins):
        it.append(seq, fresh.randrange(2**30))
    plan = it.schedule()
    assert len(plan.copies) == 2
    it.commit(plan)
    it.check_integrity()
    assert it.tables.pool.num_used == 2 + 3
    for seq in (root, *twins):
        it.finish(seq)
    assert it.tables.pool.num_used == 0


def test_truncation_leaves_no_trace() -> None:
    it = scheduler()
    seq = seq_of(6, 40)
    it.add(seq)
    it.commit(it.schedule())
    kept = len(it.tables.cache)
    it.append(seq, *range(9))  # drafts that fill two blocks
    it.commit(it.schedule())
    assert len(it.tables.cache) > kept
    it.truncate(seq, 7)
    it.check_integrity()
    assert len(it.tables.cache) == kept
    assert len(seq.blocks) == 2
    it.append(seq, 99)
    assert it.schedule().entries[0][1:] == (7, 1, 1)


def test_hidden_states_of_different_layers_take_different_steps() -> None:
    it = scheduler()
    one, two, plain = seq_of(4, tap=1), seq_of(4, tap=2), seq_of(4)
    for seq in (one, two, plain):
        it.add(seq)
    plan = it.schedule()
    assert (plan.tap, set(rows(plan))) == (1, {one, plain})
    it.commit(plan)
    plan = it.schedule()
    assert (plan.tap, set(rows(plan))) == (2, {two})


def test_what_can_never_run_is_refused_and_a_full_queue_says_so() -> None:
    it = scheduler(num_blocks=2, max_running=1, max_waiting=1)
    with pytest.raises(InvalidRequest):
        it.add(Sequence(int_array(), 4))
    for length, limit in ((9, 9), (4, 9), (5, 4)):
        with pytest.raises(ContextTooLong):
            it.add(seq_of(length, limit))
    seq = seq_of(4, 5)
    it.add(seq)
    it.add(seq_of(1, 2))
    with pytest.raises(Overloaded):
        it.add(seq_of(1, 2))
    it.append(seq, 1)
    with pytest.raises(ContextTooLong):
        it.append(seq, 2)
    it.check_integrity()


def test_only_those_without_a_seat_count_as_waiting() -> None:
    """Four at once, two seats, a queue of two: the seats were empty, yet the third was refused as one too many."""
    it = scheduler(num_blocks=8, max_running=2, max_waiting=2)
    for _ in range(4):
        it.add(seq_of(1, 2))
    with pytest.raises(Overloaded):
        it.add(seq_of(1, 2))
    it.commit(it.schedule())
    with pytest.raises(Overloaded):
        it.add(seq_of(1, 2))
    no_queue = scheduler(max_running=1, max_waiting=0)
    no_queue.add(seq_of(1, 2))
    with pytest.raises(Overloaded):
        no_queue.add(seq_of(1, 2))


def test_finishing_in_any_state_frees_everything_and_twice_is_harmless() -> None:
    it = scheduler(max_running=1)
    waiting, running, idle = seq_of(4), seq_of(4), seq_of(4)
    it.add(idle)
    it.commit(it.schedule())
    it.add(running)
    it.schedule()
    it.add(waiting)
    assert [seq.status for seq in (waiting, running, idle)] == [Status.WAITING, Status.RUNNING, Status.IDLE]
    for seq in (waiting, running, idle, running):
        it.finish(seq)
    it.check_integrity()
    assert it.tables.pool.num_used == 0
    assert not it.schedule().entries


@pytest.mark.parametrize(
    "wrong", [{"block_size": 0}, {"max_batch_tokens": 63}, {"max_outputs": 3}, {"ageing_steps": 0}]
)
def test_limits_that_cannot_work_are_refused_by_name(wrong: dict[str, int]) -> None:
    with pytest.raises(BadConfig) as caught:
        scheduler(**wrong)
    assert caught.value.key in wrong


def test_without_the_prefix_cache_nothing_is_found_and_forks_still_share() -> None:
    config = SchedulerConfig(block_size=2, num_blocks=8, max_running=4, prefix_cache=False)
    pool = (queue := Scheduler(config)).tables.pool
    for _ in range(2):
        seq = Sequence(int_array([1, 2, 3, 4, 5]), 16)
        queue.add(seq)
        plan = queue.schedule()
        assert [(entry.start, entry.num_rows) for entry in plan.entries] == [(0, 5)]
        queue.commit(plan)
        twin = queue.fork(seq)
        assert twin.blocks == seq.blocks
        queue.check_integrity()
        queue.finish(seq)
        queue.finish(twin)
        assert (pool.num_cached, pool.num_available) == (0, 8)
