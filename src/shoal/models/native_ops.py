"""The native speaker: says a network once, as nodes of a C program (`kernels.program`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from shoal.kernels.program import Code, Node, Recorder
from shoal.models.config import ModelConfig
from shoal.models.native_weights import NativeWeights
from shoal.models.rope import rope_frequencies


class NativeOps:
    """`Ops[int]`: an activation is the number of a value in `recorder`.

    targets  weight name -> its number in the adapter table, in order of first use.
    tables   rope tables the program points into: keep them alive.
    """

    def __init__(self, config: ModelConfig, weights: NativeWeights, max_positions: int) -> None:
        self.recorder = Recorder()
        self.targets: dict[str, int] = {}
        self._config, self._weights = config, weights
        self.tables = [rope_table(config, kind, max_positions) for kind in range(len(config.rope_kinds))]

    def embed(self, weight: str, scale: float = 1.0) -> int:
        width = self._weights.shape(weight)[1]
        return self._one(Node(Code.EMBED, (), (), width, weights=(self._weights.matrix(weight),), f=scale), width)

    def rms_norm(self, x: int, weight: str, eps: float) -> int:
        width = self._columns(x)
        return self._one(Node(Code.NORM, (x,), (), width, p=self._weights.vector(weight), f=eps), width)

    def head_norm(self, x: int, weight: str, eps: float, num_heads: int) -> int:
        width = self._columns(x)
        node = Node(
            Code.HEAD_NORM, (x,), (), width // num_heads, heads=num_heads, p=self._weights.vector(weight), f=eps
        )
        return self._one(node, width)

    def linear(self, x: int, weights: Sequence[str], biases: Sequence[str | None] = ()) -> tuple[int, ...]:
        out: list[int] = []
        for names in _runs_alike(weights, self._weights):
            chosen = [biases[weights.index(name)] if biases else None for name in names]
            out += self._products(x, names, chosen, on_outputs=False)
        return tuple(out)

    def rope(self, x: int, num_heads: int, kind: int) -> int:
        head_dim = self._columns(x) // num_heads
        table = self.tables[kind]
        node = Node(Code.ROPE, (x,), (), head_dim, heads=num_heads, count=table.shape[1], p=int(table.ctypes.data))
        return self._one(node, self._columns(x))

    def attention(
        self, layer: int, q: int, k: int, v: int, scale: float, window: int | None = None, softcap: float = 0.0
    ) -> int:
        self.recorder.add(Node(Code.WRITE_KV, (k, v), (), self._columns(k), layer=layer))
        width = self._columns(q)
        node = Node(Code.ATTENTION, (q,), (), width, heads=self._config.num_heads, layer=layer, count=window or 0,
                    f=scale, g=softcap)  # fmt: skip
        return self._one(node, width)

    def gated(self, gate: int, up: int, activation: Literal["silu", "gelu_tanh"]) -> int:
        width = self._columns(gate)
        return self._one(Node(Code.GATED, (gate, up), (), width, layer=int(activation == "gelu_tanh")), width)

    def add(self, x: int, y: int) -> int:
        return self._one(Node(Code.ADD, (x, y), (), self._columns(x)), self._columns(x))

    def experts(
        self, x: int, router: int, gate: str, up: str, down: str, per_token: int, renormalize: bool,
        activation: Literal["silu", "gelu_tanh"],
    ) -> int:  # fmt: skip
        width = self._columns(x)
        node = Node(
            Code.EXPERTS, (x, router), (), width, is_quantized=self._weights.is_quantized(gate), heads=per_token,
            count=self._columns(router), flags=int(renormalize), layer=int(activation == "gelu_tanh"),
            p=self._weights.matrix(gate), p2=self._weights.matrix(up), weights=(self._weights.matrix(down),),
        )  # fmt: skip
        return self._one(node, width)

    def tap(self, layer: int, x: int) -> None:
        self.recorder.add(Node(Code.TAP, (x,), (), self._columns(x), on_outputs=True, layer=layer))

    def given(self, width: int) -> int:
        """A value that is filled from outside before each step: `Batch.inputs`."""
        self.recorder.given = self.recorder.value(width)
        return self.recorder.given

    def gathered(self, x: int) -> int:
        """The batch's output rows of x."""
        width = self._columns(x)
        return self._one(Node(Code.GATHER, (x,), (), width, on_outputs=True), width)

    def logits(self, x: int, weight: str, softcap: float = 0.0) -> int:
        (out,) = self._products(self.gathered(x), [weight], [None], on_outputs=True)
        if softcap:
            columns = self._columns(out)
            out = self._one(Node(Code.SOFTCAP, (out,), (), columns, on_outputs=True, f=softcap), columns)
        return out

    def _products(self, x: int, weights: Sequence[str], biases: Sequence[str | None], on_outputs: bool) -> list[int]:
        outs = [self.recorder.value(self._weights.shape(name)[0]) for name in weights]
        node = Node(
            Code.PRODUCTS, (x,), tuple(outs), self._columns(x), on_outputs=on_outputs, count=len(weights),
            is_quantized=self._weights.is_quantized(weights[0]), adds=(False,) * len(weights),
            targets=tuple(self.targets.setdefault(name, len(self.targets)) for name in weights),
            weights=tuple(self._weights.matrix(name) for name in weights),
            biases=tuple(self._weights.vector(name) if name else 0 for name in biases),
        )  # fmt: skip
        self.recorder.add(node)
        return outs

    def _one(self, node: Node, columns: int) -> int:
        """Add `node` with one fresh value of `columns` elements per row as what it writes."""
        value = self.recorder.value(columns)
        self.recorder.add(replace(node, writes=(value,)))
        return value

    def _columns(self, value: int) -> int:
        return self.recorder.columns[value]


def rope_table(config: ModelConfig, kind: int, max_positions: int) -> np.ndarray:
    """float32 (positions, rotated dims): cosines, then sines, of every position's angles."""
    frequencies, scale = rope_frequencies(config.rope_kinds[kind], config.head_dim)
    angles = np.arange(max_positions, dtype=np.float64)[:, None] * frequencies
    return np.ascontiguousarray(np.concatenate([np.cos(angles), np.sin(angles)], 1) * scale, np.float32)


def _runs_alike(names: Sequence[str], weights: NativeWeights) -> list[list[str]]:
    """Consecutive weights that all want quantised rows, or all do not: one pass over x for each run."""
    runs: list[list[str]] = []
    for name in names:
        if runs and weights.is_quantized(runs[-1][0]) == weights.is_quantized(name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs
