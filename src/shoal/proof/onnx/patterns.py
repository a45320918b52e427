"""Several nodes that are one: BatchNormalization behind a convolution or Gemm, LayerNormalization spelled out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from shoal.proof.onnx.model import OnnxGraph, OnnxNode


def simplified(graph: OnnxGraph) -> OnnxGraph:
    """The same function with fewer nodes. The float model (and so calibration) stays the original one."""
    return merge_layer_norms(fold_batch_norms(graph))


def _producers(graph: OnnxGraph) -> dict[str, OnnxNode]:
    return {output: node for node in graph.nodes for output in node.outputs}


def _uses(graph: OnnxGraph) -> Counter[str]:
    return Counter([*(name for node in graph.nodes for name in node.inputs), *graph.outputs])


# ---- BatchNormalization


def fold_batch_norms(graph: OnnxGraph) -> OnnxGraph:
    """Puts a BatchNormalization's factor and summand into the weights of the Conv or Gemm that feeds it alone."""
    producers, uses = _producers(graph), _uses(graph)
    constants, replaced, dropped = dict(graph.constants), dict[str, OnnxNode](), set[str]()
    for node in graph.nodes:
        before = producers.get(node.inputs[0]) if node.inputs else None
        if node.op == "BatchNormalization" and before is not None and _foldable(graph, before, uses):
            replaced[before.name] = _folded(before, node, constants)
            dropped.add(node.name)
    nodes = tuple(replaced.get(node.name, node) for node in graph.nodes if node.name not in dropped)
    return replace(graph, nodes=nodes, constants=constants)


def _foldable(graph: OnnxGraph, node: OnnxNode, uses: Counter[str]) -> bool:
    constant = all(name in graph.constants for name in node.inputs[1:] if name)
    plain = node.op == "Conv" or (node.op == "Gemm" and node.attributes.get("transB", 0) == 1)
    return plain and constant and uses[node.outputs[0]] == 1


def _folded(before: OnnxNode, norm: OnnxNode, constants: dict[str, np.ndarray]) -> OnnxNode:
    gamma, beta, mean, variance = (np.asarray(constants[name], np.float64) for name in norm.inputs[1:5])
    factor = gamma / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    weight = constants[before.inputs[1]].astype(np.float64)
    has_bias = len(before.inputs) > 2 and before.inputs[2]
    bias = constants[before.inputs[2]] if has_bias else np.zeros(len(factor))
    names = (f"{before.inputs[1]}.folded", f"{norm.outputs[0]}.bias")
    alpha, beta_gemm = before.attributes.get("alpha", 1.0), before.attributes.get("beta", 1.0)
    constants[names[0]] = weight * alpha * factor.reshape((-1,) + (1,) * (weight.ndim - 1))
    constants[names[1]] = (beta_gemm * bias - mean) * factor + beta
    attributes = {key: value for key, value in before.attributes.items() if key not in ("alpha", "beta")}
    return OnnxNode(before.op, before.name, (before.inputs[0], *names), norm.outputs[:1], attributes)


# ---- LayerNormalization


def merge_layer_norms(graph: OnnxGraph) -> OnnxGraph:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps), as exporters spell it: LayerNormalization without weights."""
    producers = _producers(graph)
    constants = dict(graph.constants)
    found: dict[str, OnnxNode] = {}
    for node in graph.nodes:
        if node.op == "Div" and (merged := _layer_norm(graph, node, producers)):
            constants[merged.inputs[1]] = np.ones(graph.shapes[node.outputs[0]][-1])
            found[node.name] = merged
    nodes = tuple(found.get(node.name, node) for node in graph.nodes)
    return without_unused(replace(graph, nodes=nodes, constants=constants))


def _layer_norm(graph: OnnxGraph, division: OnnxNode, producers: dict[str, OnnxNode]) -> OnnxNode | None:
    centred, root = (producers.get(name) for name in division.inputs)
    summed = producers.get(root.inputs[0]) if root is not None and root.op == "Sqrt" else None
    if centred is None or centred.op != "Sub" or summed is None or summed.op != "Add":
        return None
    epsilon = next((graph.constants[name] for name in summed.inputs if name in graph.constants), None)
    variance = next((producers[name] for name in summed.inputs if name in producers), None)
    mean = producers.get(centred.inputs[1])
    if epsilon is None or variance is None or mean is None or not (_is_mean(graph, variance) and _is_mean(graph, mean)):
        return None
    square = producers.get(variance.inputs[0])
    if mean.inputs[0] != centred.inputs[0] or square is None or not _is_square(graph, square, centred.outputs[0]):
        return None
    attributes = {"axis": -1, "epsilon": float(np.asarray(epsilon).reshape(()))}
    weight = f"{division.outputs[0]}.ones"
    return OnnxNode("LayerNormalization", division.name, (centred.inputs[0], weight), division.outputs, attributes)


def _is_mean(graph: OnnxGraph, node: OnnxNode) -> bool:
    """ReduceMean over the last axis that keeps it."""
    if node.op != "ReduceMean" or not node.attributes.get("keepdims", 1):
        return False
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        axes = graph.constants[node.inputs[1]].tolist()
    return axes is not None and [axis % len(graph.shapes[node.inputs[0]]) for axis in axes] == [
        len(graph.shapes[node.inputs[0]]) - 1
    ]


def _is_square(graph: OnnxGraph, node: OnnxNode, of: str) -> bool:
    if node.op == "Mul":
        return node.inputs == (of, of)
    exponent = graph.constants.get(node.inputs[1]) if node.op == "Pow" else None
    return node.inputs[0] == of and exponent is not None and bool((np.asarray(exponent) == 2).all())


def without_unused(graph: OnnxGraph) -> OnnxGraph:
    """Drops nodes whose outputs nobody reads."""
    wanted, kept = set(graph.outputs), list[OnnxNode]()
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return replace(graph, nodes=tuple(reversed(kept)))
