"""The reference: a graph run node by node on int64 arrays. Knows nothing of circuits, fields or proofs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shoal.core.errors import InvalidRequest
from shoal.proof.circuit import Shape
from shoal.proof.graph.exact import OutOfRange, contract, read, scaled, shifted
from shoal.proof.graph.ir import (
    Affine,
    Contract,
    Graph,
    Ints,
    InverseRoot,
    Node,
    Requantize,
    Reshape,
    Softmax,
    Table,
)

Values = dict[str, Ints]
Truths = npt.NDArray[np.bool_]


def run(graph: Graph, inputs: Mapping[str, Ints]) -> Values:
    """Every tensor's value by name, weights and constants included.

    InvalidRequest for inputs that do not fit their declarations, OutOfRange where a value leaves its declared range.
    """
    values: Values = dict(graph.arrays)
    for name in graph.inputs:
        values[name] = _input(graph, name, inputs)
    for node in graph.nodes:
        try:
            result = _evaluate(graph, node, values)
            declared = graph.tensors[node.output]
            _hold(result, declared.low, declared.high)
        except OutOfRange as error:
            raise OutOfRange(f"node {node.name!r} ({type(node.operator).__name__}): {error}") from error
        values[node.output] = result
    return values


def _input(graph: Graph, name: str, inputs: Mapping[str, Ints]) -> Ints:
    declared = graph.tensors[name]
    if name not in inputs:
        raise InvalidRequest(f"expected an input {name!r}, found {', '.join(inputs) or 'none'}", name)
    value = np.asarray(inputs[name])
    if value.shape != declared.shape or value.dtype.kind not in "iu":
        raise InvalidRequest(
            f"input {name!r}: expected integers of shape {declared.shape}, found {value.dtype} of {value.shape}", name
        )
    try:
        _hold(value, declared.low, declared.high)
    except OutOfRange as error:
        raise InvalidRequest(f"input {name!r}: {error}", name) from error
    return value.astype(np.int64)


def _hold(value: Ints, low: int, high: int) -> None:
    if value.size and (int(value.min()) < low or int(value.max()) > high):
        raise OutOfRange(
            f"expected values in {low} .. {high}, found {int(value.min())} .. {int(value.max())}: "
            "calibrate with inputs like this one, or allow more headroom"
        )


def _evaluate(graph: Graph, node: Node, values: Values) -> Ints:
    operands = [values[name] for name in node.inputs]
    shape = graph.tensors[node.output].shape
    match node.operator:
        case Contract(summed, left, right):
            lengths = (*shape, *summed)
            pair = read(operands[0], left, lengths, values), read(operands[1], right, lengths, values)
            return contract(*pair, shape, summed)
        case Affine(reads, constant):
            return affine(
                [(c, read(x, i, shape, values)) for (c, i), x in zip(reads, operands, strict=True)], constant, shape
            )
        case Reshape():
            return operands[0].reshape(shape)
        case Requantize():
            return requantize(operands[0], node.operator, shape, values)
        case Table(table, first):
            return _look_up(operands[0], values[table], first)
        case Softmax():
            return softmax(operands[0], node.operator, values[node.operator.values])
        case InverseRoot():
            return inverse_root(operands[0], node.operator, values[node.operator.values])


def affine(terms: list[tuple[int, Ints]], constant: int, shape: Shape) -> Ints:
    """constant + the sum of coefficient * array, broadcast to `shape`."""
    result: Ints = np.full(shape, constant, np.int64)
    for coefficient, array in terms:
        result = result + scaled(array, coefficient)
        _hold(result, 1 - (1 << 62), (1 << 62) - 1)
    return result


def requantize(x: Ints, how: Requantize, shape: Shape, values: Mapping[str, Ints]) -> Ints:
    rounded = shifted(x, how.shift)
    _hold(rounded, how.low, how.high)
    if how.indices:
        lengths = (*shape, *how.window)
        windows = np.broadcast_to(read(rounded, how.indices, lengths, values), lengths)
        rounded = windows.reshape(*shape, -1).max(axis=-1)
    rectified: Ints = np.maximum(rounded, 0) if how.relu else rounded
    return rectified


def _look_up(x: Ints, table: Ints, first: int) -> Ints:
    _hold(x, first, first + len(table) - 1)
    return np.take(table.astype(np.int64), x - first)


def softmax(x: Ints, how: Softmax, table: Ints) -> Ints:
    q = shifted(x, how.shift)
    differences = log_of_sum(q, how, table) - q
    _hold(differences, 0, len(table) - 2)
    return np.take(table.astype(np.int64), differences + 1)


def log_of_sum(q: Ints, how: Softmax, table: Ints) -> Ints:
    """c of `Softmax` for each row, last axis 1: a guess in floats, then exact steps."""
    exponentials = table.astype(np.int64)
    c = _float_guess(q, exponentials, how.one)
    while (high := _exceeds(c, q, exponentials, how.one)).any():
        c = c + high
    while (low := ~_exceeds(c - 1, q, exponentials, how.one)).any():
        c = c - low
    _hold(c, how.low, how.high)
    return c


def _float_guess(q: Ints, table: Ints, one: int) -> Ints:
    """max + an estimate of 2^f log(sum): the table's own spacing says what a factor 1/e is."""
    top = q.max(axis=-1, keepdims=True)
    inverse_e = int(np.searchsorted(-table, -round(2**one / np.e))) - 1
    total = np.exp((q - top) / max(inverse_e, 1)).sum(axis=-1, keepdims=True)
    guess: Ints = top + np.floor(np.log(total) * inverse_e).astype(np.int64)
    return guess


def _exceeds(c: Ints, q: Ints, table: Ints, one: int) -> Truths:
    """Whether sum E(c - q) > 2^one, row by row. Differences below -1 exceed it alone, beyond the table E is zero."""
    place = c - q + 1
    entries = np.where(place < len(table), table[np.clip(place, 0, len(table) - 1)], 0)
    exceeds: Truths = (entries.sum(axis=-1, keepdims=True) > (1 << one)) | (place < 0).any(axis=-1, keepdims=True)
    return exceeds


def inverse_root(x: Ints, how: InverseRoot, table: Ints) -> Ints:
    least = 1 << (how.mantissa - 2)
    _hold(x, least, (least << 2 * (how.exponents + 1)) - 1)
    exponent = exponents(x, how)
    entry = np.take(table.astype(np.int64), (x >> 2 * exponent) - least)
    return np.left_shift(entry, how.exponents - exponent)


def exponents(x: Ints, how: InverseRoot) -> Ints:
    """e of `InverseRoot`."""
    return sum((np.int64(1) * (x >> (how.mantissa + 2 * e) > 0) for e in range(how.exponents)), np.zeros_like(x))
