"""What approximation asks of a runner. A runner without it serves whole requests only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from shoal.models.batch import Batch


class Approximation(Protocol):
    """Called from the engine's thread. Every step writes its batch's keys and values, as a runner's does."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    def check_positions(self) -> None:
        """Unsupported where keys cannot be dropped."""
        ...

    def check_depth(self, layers: int) -> None:
        """Unsupported where the network cannot stop after `layers`."""
        ...

    def check_neurons(self) -> None:
        """Unsupported where feed-forwards cannot be sliced."""
        ...

    def run(self, batch: Batch, layers: int = 0, neurons: int = -1) -> np.ndarray:
        """As a runner's `run`, of the first `layers` and the head (0: all), or with the core neurons of a slot."""
        ...

    def importance(self, batch: Batch, row_weights: np.ndarray, is_mean: bool, layers: int = 0) -> np.ndarray:
        """Run a batch of one sequence: float32 (layers, kv heads, keys), how much its rows attend to each key."""
        ...

    def activations(self, batch: Batch) -> np.ndarray:
        """Run a batch: float32 (layers, rows, ffn), what enters each down projection."""
        ...

    def keep_positions(self, source: Sequence[int], target: Sequence[int], kept: np.ndarray) -> None:
        """Position i of the blocks `target` gets position kept[layer, kv head, i] of the blocks `source`."""
        ...

    def set_neurons(self, slot: int, neurons: np.ndarray) -> int:
        """Fill a slot with a slice of every feed-forward, int (layers, count): its bytes."""
        ...

    def drop_neurons(self, slot: int) -> None: ...


def approximation_of(runner: object) -> Approximation | None:
    """A runner's approximation; None where it has none (torch, fakes)."""
    found: Approximation | None = getattr(runner, "approximation", None)
    return found
