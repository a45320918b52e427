"""ONNX models for measurements: Gemm 512, Gemm 1024, MLP 512-512-512, LeNet on 28x28 pictures (281,640 products).

Weights are Kaiming-random from a fixed seed unless given; `trained_lenet` has the shipped ones, trained on drawn digits
(bench/train_lenet.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.proof.onnx.model import Array, Model

Weights = Mapping[str, npt.NDArray[np.float32]]

LENET: dict[str, tuple[int, ...]] = {
    "conv1": (6, 1, 5, 5),
    "conv2": (16, 6, 5, 5),
    "fc1": (120, 256),
    "fc2": (84, 120),
    "fc3": (10, 84),
}
"""Shapes of LeNet's weights; each has a bias `<name>.bias`."""


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Kaiming-uniform weights and biases."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:]))
        made[name] = (rng.uniform(-1, 1, shape) * np.sqrt(6 / fan_in)).astype(np.float32)
        made[f"{name}.bias"] = (rng.uniform(-1, 1, shape[0]) / np.sqrt(fan_in)).astype(np.float32)
    return made


def gemm(size: int, seed: int = 0) -> bytes:
    """x (1, size) -> x W' + b, (1, size)."""
    return dense((size, size), seed)


def dense(widths: tuple[int, ...], seed: int = 0) -> bytes:
    """Fully connected layers with Relu between them."""
    shapes = {f"fc{place}": (after, before) for place, (before, after) in enumerate(pairwise(widths))}
    nodes, x = [], "input"
    for place in range(len(shapes)):
        last = place == len(shapes) - 1
        nodes += _dense_nodes(f"fc{place}", x, "output" if last else f"hidden{place}", relu=not last)
        x = f"hidden{place}"
    return _bytes(nodes, random_weights(shapes, seed), (1, widths[0]), (1, widths[-1]))


def trained_lenet() -> bytes:
    """LeNet with the shipped weights: 98.6 % of new drawn digits right."""
    with np.load(Path(__file__).with_name("lenet.npz"), allow_pickle=False) as stored:
        return lenet({name: stored[name].astype(np.float32) for name in stored.files})


def lenet(weights: Weights | None = None, seed: int = 0) -> bytes:
    """Two convolutions of 5x5 with Relu and 2x2 maxima, three fully connected layers. (1, 1, 28, 28) -> (1, 10)."""
    import onnx.helper as make

    nodes: list[Model] = []
    for name, x, y in (("conv1", "input", "pool1"), ("conv2", "pool1", "pool2")):
        nodes.append(make.make_node("Conv", [x, name, f"{name}.bias"], [f"{name}.out"], name, kernel_shape=[5, 5]))
        nodes.append(make.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], f"{name}.relu"))
        nodes.append(make.make_node("MaxPool", [f"{name}.relu"], [y], y, kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(make.make_node("Flatten", ["pool2"], ["flat"], "flatten", axis=1))
    nodes += _dense_nodes("fc1", "flat", "hidden1", relu=True)
    nodes += _dense_nodes("fc2", "hidden1", "hidden2", relu=True)
    nodes += _dense_nodes("fc3", "hidden2", "output", relu=False)
    return _bytes(nodes, weights or random_weights(LENET, seed), (1, 1, 28, 28), (1, 10))


def _dense_nodes(name: str, x: str, y: str, relu: bool) -> list[Model]:
    import onnx.helper as make

    sums = f"{name}.out" if relu else y
    nodes = [make.make_node("Gemm", [x, name, f"{name}.bias"], [sums], name, transB=1)]
    return [*nodes, make.make_node("Relu", [sums], [y], f"{name}.relu")] if relu else nodes


def _bytes(nodes: list[Model], weights: Mapping[str, Array], x: tuple[int, ...], y: tuple[int, ...]) -> bytes:
    import onnx
    import onnx.helper as make

    graph = make.make_graph(
        nodes,
        "sample",
        [make.make_tensor_value_info("input", onnx.TensorProto.FLOAT, x)],
        [make.make_tensor_value_info("output", onnx.TensorProto.FLOAT, y)],
        [onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
