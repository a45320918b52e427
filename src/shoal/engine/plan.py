"""What one step will do, and the limits it is made under. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from shoal.core.errors import BadConfig
from shoal.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits, all positive but `max_waiting` and `soft_blocks`, which may be 0, and one switch.

    block_size, num_blocks  the cache: positions per block, blocks.
    max_batch_tokens  rows of one step, decode and prefill together; at least max_running, so that every running
                      sequence can advance.
    max_running       sequences in one step.
    max_waiting       sequences that wait for a seat while all are taken; one more is refused.
    prefill_chunk     most rows of one sequence in one step.
    max_outputs       most rows of one step whose logits are wanted (each costs vocab_size * 4 bytes).
    ageing_steps      one level of priority is worth a head start of this many steps: a request waits for later ones
                      of better priority only so long, so nobody starves.
    prefix_cache      sequences may start from blocks that others computed; forks share theirs either way.
    soft_blocks       blocks the cache fills before it evicts (see `block_pool`); 0: all.
    """

    block_size: int
    num_blocks: int
    max_batch_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 256
    prefill_chunk: int = 512
    max_outputs: int = 256
    ageing_steps: int = 200
    prefix_cache: bool = True
    soft_blocks: int = 0

    def __post_init__(self) -> None:
        for key in self.__dataclass_fields__:
            least = 0 if key in ("max_waiting", "prefix_cache", "soft_blocks") else 1
            if getattr(self, key) < least:
                raise BadConfig(key, f"expected at least {least}, found {getattr(self, key)}")
        for key in ("max_batch_tokens", "max_outputs"):
            if getattr(self, key) < self.max_running:
                raise BadConfig(key, f"expected at least max_running ({self.max_running}), found {getattr(self, key)}")


class Entry(NamedTuple):
    """Positions start .. start + num_rows - 1 of `seq`; the last `num_outputs` of them owe an output."""

    seq: Sequence
    start: int
    num_rows: int
    num_outputs: int


@dataclass(slots=True)
class Plan:
    """One step: first `copies` in order, then one forward over `entries`.

    tap        layer whose residual stream is wanted at every output row, or -1.
    is_split   some entries run apart from the others: fewer layers, or core neurons only.
    preempted  sequences that lost their blocks to this step and wait again.
    """

    entries: list[Entry] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    tap: int = -1
    is_split: bool = False

    @property
    def num_tokens(self) -> int:
        return sum(entry.num_rows for entry in self.entries)
