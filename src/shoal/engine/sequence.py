"""One sequence of tokens and where its keys and values lie. Plain data; the scheduler alone changes it.

    tokens       [ prompt ............ output ..... ]
    computed     [ 0 ............ num_computed )      keys and values lie in `blocks`
    pending                      [ num_computed .. len(tokens) )
    published    [ 0 .. len(chain) * block_size )     whole blocks that the prefix cache serves

Between steps `blocks` covers exactly the computed positions: len(blocks) = ceil(num_computed / block_size). Where keys
were dropped (`stage`), it covers those that are left: ceil((num_computed - num_dropped) / block_size).
Positions >= `outputs_from` still owe an output (logits or a hidden state); those before never do again, so a
recomputation after preemption repeats no output.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from shoal.engine.approximate.stage import Stage


class Status(Enum):
    """WAITING: no blocks, wants to run. RUNNING: has blocks. IDLE: nothing pending, blocks may be taken. DONE: over."""

    WAITING = "waiting"
    RUNNING = "running"
    IDLE = "idle"
    DONE = "done"


def int_array(values: Iterable[int] = ()) -> array[int]:
    """int32 storage that numpy reads without a copy."""
    return array("i", values)


@dataclass(slots=True, eq=False)
class Sequence:
    """Identity is the object.

    limit         most tokens it may ever hold.
    namespace     what else its keys and values depend on besides tokens (the adapter's load); one per such thing.
    priority      lower runs first.
    adapter, tap  passed through to the batch: LoRA slot or -1; layer whose residual stream is wanted or -1.
    rank          (virtual time, arrival): total order in which sequences get room; set by the scheduler.
    num_cached    tokens found in the prefix cache when first admitted; -1 before.
    stage         of approximate inference; None: everything is computed and kept.
    num_drafted   of the last tokens, those that are only a guess: they may be computed but are never published.
    """

    tokens: array[int]
    limit: int
    namespace: str = ""
    priority: int = 0
    adapter: int = -1
    tap: int = -1
    outputs_from: int = -1
    rank: tuple[int, int] = (0, 0)
    status: Status = Status.WAITING
    num_computed: int = 0
    num_cached: int = -1
    num_drafted: int = 0
    blocks: array[int] = field(default_factory=int_array)
    chain: list[int] = field(default_factory=list)
    stage: Stage | None = None

    def __post_init__(self) -> None:
        if self.outputs_from < 0:
            self.outputs_from = len(self.tokens) - 1

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def num_dropped(self) -> int:
        """Computed positions that are no longer in `blocks`."""
        return 0 if self.stage is None else self.stage.dropped

    @property
    def is_paused(self) -> bool:
        """Whether the approximator must act before anything more is computed."""
        return self.stage is not None and not self.stage.is_done and self.num_computed == self.stage.at
