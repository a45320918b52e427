"""What executes a step: the network, its cache and its adapters, behind one protocol so that tests need no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shoal.models.batch import Batch


class Runner(Protocol):
    """Called from one thread, but for `read_adapter`. After an exception of any other it cannot be used any more."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def max_adapters(self) -> int: ...

    def run(self, batch: Batch) -> np.ndarray:
        """Write the batch's keys and values; float32 logits (len(output_rows), vocab), valid until the next run."""
        ...

    def taps(self) -> np.ndarray:
        """float32 (len(output_rows), hidden) after a run with tap_layer >= 0: the residual stream there."""
        ...

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks (source, destination), in order."""
        ...

    def read_adapter(self, path: str | Path) -> Any:
        """What `load_adapter` takes, of a PEFT folder; from any thread, also during a run. BadWeights, Unsupported."""
        ...

    def load_adapter(self, slot: int, adapter: Any) -> None:
        """Put what `read_adapter` made into a slot, 0 .. max_adapters - 1: no work that running requests would feel."""
        ...

    def drop_adapter(self, slot: int) -> None: ...

    def close(self) -> None: ...


def best_of(runner: object) -> Callable[[], np.ndarray] | None:
    """After a run: int32 (len(output_rows),), each row's first largest logit, or -1 for a row not all finite.

    None for a runner that does not say (torch, fakes).
    """
    found: Callable[[], np.ndarray] | None = getattr(runner, "best", None)
    return found
