"""Steps that compute less than the whole network, or report what it looked at: the kernels' half of approximation.

Rules that stay true in this file:
- a probe is set for one step and cleared after it, so that a step that asks for nothing runs as it always does;
- what a variant changes (weights of the feed-forward, and their sizes) is kept alive here, slot by slot.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from shoal.core.errors import Unsupported
from shoal.kernels.executor import Executor, Rows
from shoal.kernels.native import Matrix, Op, aligned
from shoal.kernels.program import Code

SCORED_ROWS, CHUNK = 64, 64
"""Of csrc/approx.c and attention.c: rows scored at once, keys a score buffer is rounded up to."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Where one feed-forward's records are: products that write gate and up, the gated product, and down."""

    wide: tuple[int, ...]
    gated: int
    down: int
    size: int


class PartialSteps:
    """Early exit, importance of keys, activations and sliced feed-forwards on one `Executor`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._taps = {op.layer: index for index, op in enumerate(executor.ops) if op.code == Code.TAP}
        self._num_layers = executor.cache.num_layers
        self._feed_forwards = _find_feed_forwards(executor.ops)
        self._variants: dict[int, tuple[ctypes.Array[Op], Sequence[object]]] = {}

    @property
    def feed_forwards(self) -> tuple[FeedForward, ...]:
        """In order of layers; none where every layer is a mixture of experts."""
        return self._feed_forwards

    def run(self, rows: Rows, layers: int = 0, variant: int = -1) -> np.ndarray:
        """A step of the first `layers` (0: all) and the head, or of a variant. As `Executor.run`."""
        with self._shortened(layers), self._varied(variant):
            return self._executor.run(rows)

    def importance(self, rows: Rows, row_weights: np.ndarray, is_mean: bool, layers: int = 0) -> np.ndarray:
        """Run a step of one sequence; how much its rows attend to each key: float32 (layers, kv heads, keys).

        The largest over rows and heads of a group (or their mean) of the attention probability times the row's weight.
        """
        cache, probe, keys = self._executor.cache, self._executor.probe, int(rows.context_lens[0])
        found = np.zeros((layers or self._num_layers, cache.num_kv_heads, keys), np.float32)
        stride = -(-keys // CHUNK) * CHUNK
        scores = aligned(4 * self._executor.threads * SCORED_ROWS * stride)
        weights = np.ascontiguousarray(row_weights, np.float32)
        with self._shortened(layers):
            probe.importance, probe.scores = found.ctypes.data, scores.ctypes.data
            probe.row_weights, probe.keys, probe.is_mean = weights.ctypes.data, keys, is_mean
            try:
                self._executor.run(rows)
            finally:
                probe.importance = None
        return found

    def activations(self, rows: Rows) -> np.ndarray:
        """Run a step; what enters each down projection: float32 (feed-forwards, rows, ffn).

        Unsupported where feed-forwards are experts, or differ in size.
        """
        sizes = {each.size for each in self._feed_forwards}
        if len(sizes) != 1:
            raise Unsupported(f"kernels: expected feed-forwards of one size, found {sorted(sizes)}")
        found = np.zeros((len(self._feed_forwards), len(rows.tokens), sizes.pop()), np.float32)
        self._executor.probe.activations = found.ctypes.data
        try:
            self._executor.run(rows)
        finally:
            self._executor.probe.activations = None
        return found

    def set_variant(self, slot: int, weights: Sequence[Sequence[Matrix]], kept_alive: Sequence[object]) -> None:
        """Let variant `slot` use other matrices: for each feed-forward its wide ones, then down (quantised)."""
        ops = (Op * len(self._executor.ops)).from_buffer_copy(self._executor.ops)
        for place, matrices in zip(self._feed_forwards, weights, strict=True):
            _slice(ops, place, matrices)
        self._variants[slot] = (ops, [*weights, *kept_alive])

    def drop_variant(self, slot: int) -> None:
        """Forget a variant; nothing happens where there is none."""
        self._variants.pop(slot, None)

    def check_depth(self, layers: int) -> None:
        """Unsupported where a step cannot stop after `layers`."""
        ops = self._executor.ops
        if not 0 < layers <= self._num_layers:
            raise Unsupported(f"kernels: expected 1 .. {self._num_layers} layers, found {layers}")
        if ops[self._taps[layers]].in1 != ops[self._taps[self._num_layers]].in1:
            raise Unsupported("kernels: this network's residual stream moves between buffers: it cannot exit early")

    @contextmanager
    def _shortened(self, layers: int) -> Iterator[None]:
        if not layers:
            yield
            return
        self.check_depth(layers)
        probe = self._executor.probe
        probe.skip_from, probe.skip_to = self._taps[layers], self._taps[self._num_layers]
        try:
            yield
        finally:
            probe.skip_from = -1

    @contextmanager
    def _varied(self, variant: int) -> Iterator[None]:
        if variant < 0:
            yield
            return
        self._executor.use(self._variants[variant][0])
        try:
            yield
        finally:
            self._executor.use(self._executor.ops)


def _find_feed_forwards(ops: ctypes.Array[Op]) -> tuple[FeedForward, ...]:
    found = []
    for index, op in enumerate(ops):
        if op.code != Code.GATED:
            continue
        before = [i for i in range(index) if ops[i].code == Code.PRODUCTS and {op.in1, op.in2} & set(_outs(ops[i]))]
        wide = tuple(before[-1:]) if set(_outs(ops[before[-1]])) >= {op.in1, op.in2} else tuple(before[-2:])
        down = next(i for i in range(index + 1, len(ops)) if ops[i].code == Code.PRODUCTS and ops[i].in1 == op.out)
        found.append(FeedForward(wide, index, down, op.columns))
    return tuple(found)


def _outs(op: Op) -> list[int]:
    return list(op.outs[: op.count])


def _slice(ops: ctypes.Array[Op], place: FeedForward, matrices: Sequence[Matrix]) -> None:
    *wide, down = matrices
    slots = [(index, at) for index in place.wide for at in range(ops[index].count)]
    for (index, at), matrix in zip(slots, wide, strict=True):
        ops[index].weights[at] = ctypes.addressof(matrix)
    gated = ops[place.gated]
    gated.columns, gated.flags = down.columns, 1
    for index in range(place.gated + 1, place.down + 1):
        ops[index].columns = down.columns
    ops[place.down].weights[0] = ctypes.addressof(down)
