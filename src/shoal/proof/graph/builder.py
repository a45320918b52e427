"""Graphs grown node by node: shapes are checked, ranges and fractions follow from the operands'.

Every method adds one node and returns the name of its output. Layers made of several nodes are in `operators`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from shoal.core.errors import BadConfig
from shoal.crypto.hashes import blake3_digest
from shoal.proof.circuit import Index, Shape
from shoal.proof.graph import ranges
from shoal.proof.graph.ir import (
    Affine,
    Contract,
    Graph,
    Indices,
    Ints,
    InverseRoot,
    Node,
    Operator,
    Requantize,
    Reshape,
    Role,
    Softmax,
    Table,
    Tensor,
    compact,
)
from shoal.proof.graph.ranges import Range

MAX_TABLE = 1 << 16
Term = tuple[int, str, Indices]
"""coefficient, operand, indices: one read of an affine node."""


def axis(number: int, stride: int = 1, offset: int = 0) -> Index:
    """The index offset + stride * i of one axis of the space."""
    return Index(((number, stride),), offset)


def identity(rank: int) -> Indices:
    """Axis by axis."""
    return tuple(axis(number) for number in range(rank))


@dataclass(frozen=True, slots=True)
class Sum:
    """How a contraction reads its operands: axes of the output first, then those of `summed`."""

    space: Shape
    summed: Shape
    left: Indices
    right: Indices


class Builder:
    """A graph under construction. `finish` ends it."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._nodes: list[Node] = []
        self._inputs: list[str] = []
        self._arrays: dict[str, Ints] = {}

    # ---- tensors that come from outside

    def input(self, name: str, shape: Shape, within: Range, fraction: int = 0) -> str:
        self._inputs.append(self._declare(name, Tensor(shape, within.low, within.high, fraction, "input")))
        return name

    def weight(self, name: str, array: Ints, fraction: int = 0, role: Role = "weight") -> str:
        self._arrays[name] = compact(array)
        held = ranges.of_array(self._arrays[name])
        return self._declare(name, Tensor(array.shape, held.low, held.high, fraction, role))

    def constant(self, name: str, array: Ints, fraction: int = 0) -> str:
        return self.weight(name, array, fraction, "constant")

    # ---- operators

    def contract(self, name: str, left: str, right: str, how: Sum) -> str:
        for operand, indices in ((left, how.left), (right, how.right)):
            self._check_reads(name, operand, indices, len(how.space) + len(how.summed))
        fraction = self.tensors[left].fraction + self.tensors[right].fraction
        operator = Contract(how.summed, how.left, how.right)
        return self._add(name, operator, (left, right), how.space, self._range_of_sum(left, right, how), fraction)

    def affine(self, name: str, terms: list[Term], space: Shape, constant: int = 0, fraction: int | None = None) -> str:
        """Operands must already be in one scale (the first one's unless `fraction` says another)."""
        total = Range(constant, constant)
        for coefficient, operand, indices in terms:
            self._check_reads(name, operand, indices, len(space))
            declared = self.tensors[operand]
            part = ranges.of_read(Range(declared.low, declared.high), declared.shape, indices, space)
            total = total.plus(part.times(coefficient))
        operator = Affine(tuple((coefficient, indices) for coefficient, _, indices in terms), constant)
        fraction = self.tensors[terms[0][1]].fraction if fraction is None else fraction
        return self._add(name, operator, tuple(operand for _, operand, _ in terms), space, total, fraction)

    def reshape(self, name: str, x: str, shape: Shape) -> str:
        old = self.tensors[x]
        if int(np.prod(shape)) != int(np.prod(old.shape)):
            raise BadConfig(name, f"expected as many entries as {x} of {old.shape}, found shape {shape}")
        return self._add(name, Reshape(), (x,), shape, Range(old.low, old.high), old.fraction)

    def requantize(self, name: str, x: str, how: Requantize, space: Shape | None = None) -> str:
        """`space` is the output's shape where `how` pools; else the input's."""
        old = self.tensors[x]
        space = old.shape if space is None else space
        if how.indices:
            self._check_reads(name, x, how.indices, len(space) + len(how.window))
        held = Range(max(how.low, 0), max(how.high, 0)) if how.relu else Range(how.low, how.high)
        return self._add(name, how, (x,), space, held, old.fraction - how.shift)

    def table(self, name: str, x: str, values: Ints, first: int, fraction: int) -> str:
        held = self.tensors[x]
        if len(values) > MAX_TABLE or held.low < first or held.high >= first + len(values):
            raise BadConfig(
                name, f"expected a table for {held.low} .. {held.high} of at most {MAX_TABLE} rows, found {len(values)}"
            )
        digest = blake3_digest("shoal table", np.ascontiguousarray(values, "<i8").tobytes()).hex()
        stored = self._table_constant(f"table {digest[:16]}", values)
        return self._add(name, Table(stored, first), (x,), held.shape, ranges.of_array(values), fraction)

    def softmax(self, name: str, x: str, how: Softmax, values: Ints) -> str:
        """`how.values` is the name under which `values` is stored; nodes may share it."""
        self._table_constant(how.values, values)
        return self._add(name, how, (x,), self.tensors[x].shape, Range(0, 1 << how.one), how.one)

    def inverse_root(self, name: str, x: str, how: InverseRoot, values: Ints) -> str:
        """`values`: T of `InverseRoot`, round(2^(3 mantissa / 2) / sqrt(m)); stored as `how.values`."""
        held = self.tensors[x]
        if held.fraction % 2 or how.mantissa % 2:
            raise BadConfig(name, f"expected even fractions, found {held.fraction} ({x}) and {how.mantissa}")
        self._table_constant(how.values, values)
        fraction = 3 * how.mantissa // 2 + how.exponents - held.fraction // 2
        return self._add(name, how, (x,), held.shape, Range(0, int(values.max()) << how.exponents), fraction)

    def finish(self, outputs: tuple[str, ...]) -> Graph:
        return Graph(self.tensors, tuple(self._nodes), tuple(self._inputs), outputs, self._arrays)

    # ---- inside

    def _add(
        self, name: str, operator: Operator, inputs: tuple[str, ...], shape: Shape, held: Range, fraction: int
    ) -> str:
        self._declare(name, Tensor(shape, held.low, held.high, fraction))
        self._nodes.append(Node(name, operator, inputs, name))
        return name

    def _declare(self, name: str, tensor: Tensor) -> str:
        if name in self.tensors:
            raise BadConfig(name, "expected a new name, found one that is taken")
        self.tensors[name] = tensor
        return name

    def _table_constant(self, name: str, values: Ints) -> str:
        if name in self._arrays and np.array_equal(self._arrays[name], values):
            return name
        return self.constant(name, values)

    def _range_of_sum(self, left: str, right: str, how: Sum) -> Range:
        lengths = (*how.space, *how.summed)
        for values, known, indices in ((left, right, how.right), (right, left, how.left)):
            if known in self._arrays:
                held = self.tensors[values]
                within = Range(held.low, held.high)
                return ranges.of_weighted_sums(within, self._arrays[known], indices, lengths, len(how.space))
        a, b = self.tensors[left], self.tensors[right]
        if left == right and how.left == how.right:
            return Range(0, max(a.low**2, a.high**2) * prod(how.summed))
        return ranges.of_products(Range(a.low, a.high), Range(b.low, b.high), prod(how.summed))

    def _check_reads(self, name: str, operand: str, indices: Indices, rank: int) -> None:
        """Rules of `circuit.Read`: one index for each axis, axes of the space that exist, none used twice."""
        if operand not in self.tensors:
            raise BadConfig(name, f"expected a tensor made before, found {operand!r}")
        shape = self.tensors[operand].shape
        used = [number for index in indices for number, _ in index.terms]
        if len(indices) != len(shape) or len(set(used)) != len(used) or any(not 0 <= number < rank for number in used):
            raise BadConfig(
                name, f"expected one index for each axis of {operand} {shape}, each axis once, found {indices}"
            )
