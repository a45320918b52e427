"""Who runs next. Synchronous decisions on plain data; time is the number of steps planned so far.

Every sequence has a rank (virtual time, arrival), fixed when it arrives: virtual time = step + priority *
ageing_steps. `schedule` walks waiting and running sequences in the order of rank and gives each what it needs;
where room is missing, idle sequences and then those of worse rank lose their blocks (and are recomputed later,
mostly from the prefix cache). So:

- the best-ranked sequence advances in every step, whatever the others hold: no livelock;
- only finitely many sequences ever rank before a given one: no starvation;
- a sequence in the plan is never preempted by a later one, so copies and slots of a plan stay valid.

    add --> WAITING --admit--> RUNNING --nothing pending--> IDLE --append--> RUNNING (WAITING if its blocks were taken)
               ^------preempt-----'                           finish, from anywhere --> DONE
"""

from __future__ import annotations

import heapq
from array import array
from bisect import insort
from itertools import pairwise

from shoal.core.errors import ContextTooLong, InvalidRequest, Overloaded
from shoal.engine.plan import Plan, SchedulerConfig
from shoal.engine.sequence import Sequence, Status
from shoal.engine.tables import BlockTables
from shoal.engine.walk import Walk


def rank_of(seq: Sequence) -> tuple[int, int]:
    return seq.rank


class Scheduler:
    """`paused` collects sequences that wait for the approximator; whoever acts on them takes them out.

    Between `schedule` and `commit` of its plan nothing but `finish` may be called.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.tables = BlockTables(
            config.num_blocks,
            config.block_size,
            shares_prefixes=config.prefix_cache,
            soft_blocks=config.soft_blocks,
        )
        self.num_preemptions = 0
        self.paused: list[Sequence] = []
        self._step = 0
        self._arrivals = 0
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._idle: dict[Sequence, None] = {}

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def is_full(self) -> bool:
        """Whether one more would be one too many; who will take a free seat in the next step does not count."""
        free = max(0, self.config.max_running - len(self._running))
        return len(self._waiting) >= self.config.max_waiting + free

    @property
    def capacity(self) -> int:
        """Positions of the whole cache: no sequence can be longer."""
        return self.config.num_blocks * self.config.block_size

    # ---- sequences come, change and go ------------------------------------------------------------------

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence. ContextTooLong if it can never run, Overloaded if the queue is full."""
        if not seq.tokens:
            raise InvalidRequest("expected at least one token, found an empty prompt", "prompt")
        self._check_length(seq, max(len(seq.tokens), seq.limit))
        if self.is_full:
            raise Overloaded(f"{len(self._waiting)} requests are waiting already; try again later")
        seq.rank = self._rank(seq)
        insort(self._waiting, seq, key=rank_of)

    def append(self, seq: Sequence, *tokens: int) -> None:
        """Add tokens after the last one. ContextTooLong beyond the sequence's limit."""
        self._check_length(seq, len(seq.tokens) + len(tokens))
        seq.tokens.extend(tokens)
        if seq.status is Status.IDLE and tokens:
            self._wake(seq)

    def truncate(self, seq: Sequence, num_tokens: int) -> None:
        """Keep the first `num_tokens`; the rest leaves no trace in cache or outputs."""
        assert 0 < num_tokens <= len(seq.tokens), f"cannot keep {num_tokens} of {len(seq.tokens)} tokens"
        assert seq.stage is None or num_tokens >= seq.stage.at, "dropped keys do not come back"
        del seq.tokens[num_tokens:]
        seq.num_computed = min(seq.num_computed, num_tokens)
        seq.outputs_from = min(seq.outputs_from, num_tokens)
        self.tables.truncate(seq)

    def settle(self, seq: Sequence, num_tokens: int) -> None:
        """The draft behind `seq` was checked: the first `num_tokens` are certain now, the rest never happened."""
        seq.num_drafted = 0
        self.truncate(seq, num_tokens)
        self.tables.publish(seq)

    def fork(self, seq: Sequence) -> Sequence:
        """A second sequence in the same state, ranked right behind; blocks are shared until one side writes."""
        child = Sequence(array("i", seq.tokens), seq.limit, seq.namespace, seq.priority, seq.adapter, seq.tap)
        child.outputs_from, child.status, child.num_cached = seq.outputs_from, seq.status, seq.num_cached
        child.rank = (seq.rank[0], self._rank(seq)[1])
        child.stage = None if seq.stage is None else seq.stage.copy()
        self.tables.fork(seq, child)
        match seq.status:
            case Status.WAITING:
                insort(self._waiting, child, key=rank_of)
            case Status.RUNNING:
                insort(self._running, child, key=rank_of)
            case Status.IDLE if child.blocks:
                self._idle[child] = None
        if child.is_paused:
            self.paused.append(child)
        return child

    def finish(self, seq: Sequence) -> None:
        """The sequence is over, in whatever state it is: its blocks are released at once. Twice is harmless."""
        match seq.status:
            case Status.WAITING:
                self._waiting.remove(seq)
            case Status.RUNNING:
                self._running.remove(seq)
            case Status.IDLE:
                self._idle.pop(seq, None)
        self.tables.release(seq)
        seq.status = Status.DONE

    # ---- steps ------------------------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """Plan the next step; its entries are empty only if nothing is pending."""
        self._step += 1
        for seq in [seq for seq in self._running if not seq.num_pending]:
            self._running.remove(seq)
            self._idle[seq] = None
            seq.status = Status.IDLE
        walk = Walk(self.config, promised=len(self._running))
        for seq in list(heapq.merge(self._running, self._waiting, key=rank_of)):
            if not walk.has_budget:
                break
            self._visit(seq, walk)
        self.num_preemptions += len(walk.plan.preempted)
        return walk.plan

    def commit(self, plan: Plan) -> None:
        """The forward of `plan` is done: advance, and publish what became full blocks."""
        for seq, start, count, _ in plan.entries:
            if seq.status is Status.DONE:
                continue
            seq.num_computed = start + count
            seq.outputs_from = max(seq.outputs_from, seq.num_computed)
            self.tables.publish(seq)
            if seq.stage is not None and seq.is_paused:
                self.paused.append(seq)

    # ---- between steps: room for the approximator ---------------------------------------------------------

    def borrow(self, seq: Sequence, count: int) -> list[int] | None:
        """`count` blocks to work on `seq` with, a reference each; those ranked behind make room. None: no room."""
        walk, taken = Walk(self.config, promised=0), list[int]()
        while len(taken) < count:
            block = self.tables.pool.allocate()
            if block is not None:
                taken.append(block)
            elif not self._make_room(seq, walk):
                self.give_back(taken)
                return None
        self.num_preemptions += len(walk.plan.preempted)
        return taken

    def give_back(self, blocks: list[int]) -> None:
        """Release what was borrowed and not put into a sequence."""
        for block in blocks:
            self.tables.pool.release(block)

    def restart(self, seq: Sequence) -> None:
        """Let a running sequence queue again at its rank, without blocks: it is computed from its first token."""
        assert seq.status is Status.RUNNING, f"cannot restart a sequence that is {seq.status.value}"
        self._running.remove(seq)
        self.tables.release(seq)
        seq.status = Status.WAITING
        insort(self._waiting, seq, key=rank_of)

    def _visit(self, seq: Sequence, walk: Walk) -> None:
        if seq.status is Status.RUNNING:
            walk.redeem()
        elif not self._admit(seq, walk):
            return
        count, start = walk.allowance(seq), seq.num_computed
        if count == 0:
            return
        end = self.tables.extend(seq, start + count, walk.plan.copies)
        while end == start and self._make_room(seq, walk):
            end = self.tables.extend(seq, start + count, walk.plan.copies)
        if end > start:
            walk.take(seq, end - start)

    def _admit(self, seq: Sequence, walk: Walk) -> bool:
        """Move a waiting sequence to the running ones, if seats and blocks allow or can be made to."""
        if not walk.may_admit(seq):
            return False
        matched = self.tables.match(seq)
        if self.tables.is_being_computed(seq, len(matched), (entry.seq for entry in walk.plan.entries)):
            return False  # wait for what a planned sequence is about to publish
        while len(self._running) >= self.config.max_running or not self.tables.has_room(seq, matched):
            if not self._make_room(seq, walk):
                walk.is_full = True  # nobody of worse rank may slip in before this one
                return False
        self.tables.adopt(seq, matched)
        if seq.num_cached < 0:
            seq.num_cached = seq.num_computed
        self._waiting.remove(seq)
        seq.status = Status.RUNNING
        insort(self._running, seq, key=rank_of)
        return True

    def _make_room(self, seq: Sequence, walk: Walk) -> bool:
        """Take the blocks of the longest idle sequence, else of the worst-ranked one behind `seq`."""
        if self._idle:
            idle = next(iter(self._idle))
            del self._idle[idle]
            self.tables.release(idle)
            return True
        victim = self._running[-1] if self._running else seq
        if victim.rank <= seq.rank:
            return False
        self._running.pop()
        self.tables.release(victim)
        victim.status = Status.WAITING
        insort(self._waiting, victim, key=rank_of)
        walk.plan.preempted.append(victim)
        walk.redeem()
        return True

    def _wake(self, seq: Sequence) -> None:
        """An idle sequence has work again. It queues anew, or a long-lived one would always come first."""
        self._idle.pop(seq, None)
        seq.rank = self._rank(seq)
        seq.status = Status.RUNNING if seq.blocks else Status.WAITING
        insort(self._running if seq.blocks else self._waiting, seq, key=rank_of)

    def _check_length(self, seq: Sequence, length: int) -> None:
        most = min(seq.limit, self.capacity)
        if length > most:
            raise ContextTooLong(f"expected at most {most} tokens in context and answer, found {length}")

    def _rank(self, seq: Sequence) -> tuple[int, int]:
        self._arrivals += 1
        return self._step + seq.priority * self.config.ageing_steps, self._arrivals

    # ---- audit ------------------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """AssertionError unless queues are ordered, statuses true and every block accounted for. Between steps only."""
        for queue, status in ((self._waiting, Status.WAITING), (self._running, Status.RUNNING)):
            assert all(seq.status is status for seq in queue), f"a sequence in the {status.value} queue is not"
            assert all(a.rank < b.rank for a, b in pairwise(queue)), "a queue is out of order"
        assert all(seq.status is Status.IDLE and not seq.num_pending for seq in self._idle), "an idle one has work"
        assert not any(seq.blocks for seq in self._waiting), "a waiting sequence holds blocks"
        self.tables.check_integrity([*self._running, *self._idle])
