"""Whether a graph means anything: for graphs that come from a file. Those of a `Builder` pass by construction.

What this does not check: that declared ranges follow from the operands'. A wrong range is an error of the run, and
circuits are held to their ranges by `proof.bounds`, whatever a graph declares.
"""

from __future__ import annotations

from math import prod

import numpy as np

from shoal.core.errors import BadWeights
from shoal.proof.circuit import Index, Shape
from shoal.proof.graph.builder import MAX_TABLE
from shoal.proof.graph.ir import (
    Affine,
    Contract,
    Graph,
    Indices,
    InverseRoot,
    Node,
    Requantize,
    Reshape,
    Softmax,
    Table,
    Tensor,
)

MOST_ENTRIES = 1 << 32
ROLES = ("input", "weight", "constant", "inner")
ARITY: dict[type, int] = {Contract: 2, Reshape: 1, Requantize: 1, Table: 1, Softmax: 1, InverseRoot: 1}


def check_graph(graph: Graph, with_weights: bool = True) -> Graph:
    """The graph itself, or BadWeights with the tensor or node at fault. with_weights: whether it must have them."""
    held = ("weight", "constant") if with_weights else ("constant",)
    for name, tensor in graph.tensors.items():
        _check_tensor(graph, name, tensor)
        if tensor.role in held:
            found = graph.arrays[name].shape if name in graph.arrays else None
            _require(found == tensor.shape, name, f"an array of {tensor.shape}", found)
    made = {name for name, tensor in graph.tensors.items() if tensor.role != "inner"}
    _require(set(graph.inputs) <= made, "inputs", "declared inputs", graph.inputs)
    for node in graph.nodes:
        _require(set(node.inputs) <= made, node.name, "operands that exist before the node", node.inputs)
        fresh = node.output in graph.tensors and node.output not in made
        _require(fresh, node.name, "a declared output that no other node makes", node.output)
        _check_node(graph, node)
        made.add(node.output)
    _require(set(graph.outputs) <= made and bool(graph.outputs), "outputs", "tensors that are made", graph.outputs)
    return graph


def _check_tensor(graph: Graph, name: str, tensor: Tensor) -> None:
    numbers = (*tensor.shape, tensor.low, tensor.high, tensor.fraction)
    _require(all(type(number) is int for number in numbers), name, "whole numbers", numbers)
    sizes = all(length > 0 for length in tensor.shape) and prod(tensor.shape) <= MOST_ENTRIES
    _require(sizes, name, "axes of at least one entry", tensor.shape)
    _require(-(1 << 62) < tensor.low <= tensor.high < 1 << 62, name, "a range of 62 bits", (tensor.low, tensor.high))
    _require(tensor.role in ROLES, name, f"a role of {ROLES}", tensor.role)
    _require((tensor.role == "input") == (name in graph.inputs), name, "to be an input or not", tensor.role)


def _check_node(graph: Graph, node: Node) -> None:
    shape, operator = graph.tensors[node.output].shape, node.operator
    shapes = [graph.tensors[name].shape for name in node.inputs]
    expected = len(operator.reads) if isinstance(operator, Affine) else ARITY[type(operator)]
    _require(len(shapes) == expected and shapes != [], node.name, f"{expected} operands", node.inputs)
    match operator:
        case Contract(summed, left, right):
            _check_reads(graph, node, (shapes[0], left), (*shape, *summed))
            _check_reads(graph, node, (shapes[1], right), (*shape, *summed))
        case Affine(reads):
            for own, (_, indices) in zip(shapes, reads, strict=True):
                _check_reads(graph, node, (own, indices), shape)
        case Reshape():
            _require(prod(shape) == prod(shapes[0]), node.name, f"{prod(shapes[0])} entries", shape)
        case Requantize():
            _check_requantize(graph, node, operator, shapes[0])
        case Table() | Softmax() | InverseRoot():
            _check_table(graph, node, operator, shapes[0])


def _check_reads(graph: Graph, node: Node, read: tuple[Shape, Indices], space: Shape) -> None:
    shape, indices = read
    used = [axis for index in indices for axis, _ in index.terms]
    fits = len(indices) == len(shape) and len(set(used)) == len(used) and all(0 <= axis < len(space) for axis in used)
    _require(fits and all(length > 0 for length in space), node.name, f"one index for each axis of {shape}", indices)
    for index in indices:
        _require(_is_index(graph, index), node.name, "whole numbers, and input vectors to gather by", index)


def _is_index(graph: Graph, index: Index) -> bool:
    whole = all(type(number) is int for pair in index.terms for number in (*pair, index.offset))
    if index.summed and (index.terms or index.offset or index.gather):
        return False
    by = graph.tensors.get(index.gather) if index.gather is not None else None
    return whole and (index.gather is None or (by is not None and by.role == "input" and len(by.shape) == 1))


def _check_requantize(graph: Graph, node: Node, how: Requantize, shape: Shape) -> None:
    own = graph.tensors[node.output].shape
    _require(0 <= how.shift < 62 and how.low <= how.high, node.name, "a shift below 62 and a range", how)
    if how.indices:
        _check_reads(graph, node, (shape, how.indices), (*own, *how.window))
    else:
        _require(own == shape and not how.window, node.name, f"the operand's shape {shape}", own)


def _check_table(graph: Graph, node: Node, how: Table | Softmax | InverseRoot, shape: Shape) -> None:
    own, values = graph.tensors[node.output].shape, graph.arrays.get(how.values)
    _require(own == shape, node.name, f"the operand's shape {shape}", own)
    held = values is not None and values.ndim == 1 and 2 <= len(values) <= MAX_TABLE + 1
    _require(held, node.name, f"a table of at most {MAX_TABLE} rows", how.values)
    assert values is not None, "just required"
    match how:
        case Softmax():
            falling = bool((np.diff(values.astype(np.int64)) <= 0).all()) and int(values.min()) >= 0
            ones = 0 < how.one < 31 and int(values[1]) == 1 << how.one < int(values[0])
            _require(0 <= how.shift < 62 and falling and ones, node.name, "a falling table through 2^one at 0", how)
        case InverseRoot():
            length = 3 << (how.mantissa - 2) if 2 <= how.mantissa <= 18 else 0
            _require(len(values) == length and 0 <= how.exponents < 31, node.name, "a table of mantissas", how)
        case Table():
            _require(type(how.first) is int, node.name, "a whole first key", how.first)


def _require(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise BadWeights("graph.json", where, expected, str(found))
