"""Operators that move entries and compute nothing: index maps of the integer graph."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Index
from shoal.proof.graph import operators
from shoal.proof.graph.builder import axis
from shoal.proof.onnx.model import OnnxNode
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Fixed, Narrow, Value


def reshape(q: Quantiser, node: OnnxNode) -> Value:
    """Reshape, Flatten, Squeeze, Unsqueeze: the shape is the one ONNX infers."""
    x, output = q.narrow(node.inputs[0]), node.outputs[0]
    return Narrow(q.builder.reshape(output, x, _static(q, node)))


def _static(q: Quantiser, node: OnnxNode) -> tuple[int, ...]:
    shape = q.graph.shapes.get(node.outputs[0], ())
    size = int(np.prod(q.shape(node.inputs[0])))
    if int(np.prod(shape)) != size:
        raise node.refuse(f"expected a static shape of {size} entries, found {shape}")
    return shape


def transpose(q: Quantiser, node: OnnxNode) -> Value:
    x = q.narrow(node.inputs[0])
    rank = len(q.builder.tensors[x].shape)
    order = tuple(node.attributes.get("perm", range(rank)[::-1]))
    return Narrow(operators.transpose(q.builder, node.outputs[0], x, order))


def concat(q: Quantiser, node: OnnxNode) -> Value:
    parts = [q.narrow(name) for name in node.inputs]
    rank = len(q.builder.tensors[parts[0]].shape)
    return Narrow(operators.concat(q.builder, node.outputs[0], parts, node.attributes["axis"] % rank))


def gather(q: Quantiser, node: OnnxNode) -> Value:
    """Rows of a constant by an input of token ids (an embedding), or one constant position of a tensor's axis."""
    along = node.attributes.get("axis", 0)
    table = q.values[node.inputs[0]]
    if isinstance(table, Fixed) and node.inputs[1] in q.graph.inputs:
        if along != 0 or table.array.ndim != 2:
            raise node.refuse(f"expected rows of a matrix, found axis {along} of {table.array.shape}")
        return _embedding(q, node)
    return _take(q, node, along % len(q.shape(node.inputs[0])))


def _embedding(q: Quantiser, node: OnnxNode) -> Value:
    tokens, output = node.inputs[1], node.outputs[0]
    shape = q.builder.tensors[tokens].shape
    weight = q.own_weight(node.inputs[0], q.fixed(node, 0))
    if len(shape) != 1 and int(np.prod(shape)) != shape[-1]:
        raise node.refuse(f"expected one list of token ids, found shape {shape}")
    if len(shape) != 1:
        raise node.refuse("expected the ids as one axis: declare the model's input without its batch axis")
    return Narrow(operators.embedding(q.builder, output, tokens, weight))


def _take(q: Quantiser, node: OnnxNode, along: int) -> Value:
    """Entries first, first + step, ... of an axis, or one entry of it."""
    where = np.asarray(q.fixed(node, 1))
    x = q.narrow(node.inputs[0])
    shape = q.builder.tensors[x].shape
    flat = np.where(where < 0, where + shape[along], where).reshape(-1)
    step = int(flat[1] - flat[0]) if len(flat) > 1 else 1
    if where.ndim > 1 or (np.diff(flat) != step).any():
        raise node.refuse("expected indices in even steps")
    return Narrow(_picked(q, node.outputs[0], x, (along, int(flat[0]), step, len(flat)), keep=where.ndim == 1))


def _picked(q: Quantiser, output: str, x: str, pick: tuple[int, int, int, int], keep: bool) -> str:
    along, first, step, count = pick
    shape = q.builder.tensors[x].shape
    indices: list[Index] = []
    space: list[int] = []
    for place, length in enumerate(shape):
        if place == along and not keep:
            indices.append(Index(offset=first))
            continue
        indices.append(axis(len(space), step if place == along else 1, first if place == along else 0))
        space.append(count if place == along else length)
    return q.builder.affine(output, [(1, x, tuple(indices))], tuple(space))


def slice_(q: Quantiser, node: OnnxNode) -> Value:
    """One axis after the other, constant bounds, positive or negative steps."""
    x, output = q.narrow(node.inputs[0]), node.outputs[0]
    starts, ends = (np.asarray(q.fixed(node, place)).tolist() for place in (1, 2))
    has_axes, has_steps = len(node.inputs) > 3 and node.inputs[3], len(node.inputs) > 4 and node.inputs[4]
    axes = np.asarray(q.fixed(node, 3)).tolist() if has_axes else list(range(len(starts)))
    steps = np.asarray(q.fixed(node, 4)).tolist() if has_steps else [1] * len(starts)
    for number, (start, end, along, step) in enumerate(zip(starts, ends, axes, steps, strict=True)):
        shape = q.builder.tensors[x].shape
        along %= len(shape)
        picked = range(*slice(start, end, step).indices(shape[along]))
        name = output if number == len(starts) - 1 else f"{output}.{number}"
        x = _picked(q, name, x, (along, picked.start, step, len(picked)), keep=True)
    return Narrow(x)


def same(q: Quantiser, node: OnnxNode) -> Value:
    """Identity, Dropout at inference, Cast of floats: nothing happens."""
    q.narrow(node.inputs[0])
    return q.values[node.inputs[0]]
