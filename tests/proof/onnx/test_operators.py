"""Every operator against onnxruntime: the integer graph's output is the float model's to within its precision, and the
circuit of it holds. Bounds on the error are for 16-bit tables and 2^-16 fractions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from circuit_checks import faults, values_of
from onnx import TensorProto, helper, numpy_helper

from shoal.core.errors import BadWeights, InvalidRequest, Unsupported
from shoal.proof.lower.lower import lower
from shoal.proof.onnx.importer import Imported, import_model
from shoal.proof.onnx.model import read_model
from shoal.proof.onnx.precision import INT8, wide

RNG = np.random.default_rng(0)
PICTURE = (1, 4, 9, 8)


def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def model(nodes: list[Any], shape: tuple[int, ...], constants: dict[str, np.ndarray], opset: int = 20) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made)
    return made.SerializeToString()


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), [output], name=f"the {op} of {output}", **attributes)


def compare(data: bytes, shape: tuple[int, ...], tolerance: float, low: float = -2.0) -> Imported:
    """The integers against onnxruntime on samples it was calibrated on, and on one circuit."""
    samples = [{"x": RNG.uniform(low, 2, shape).astype(np.float32)} for _ in range(4)]
    imported = import_model(data, samples, wide(16))
    session = onnxruntime.InferenceSession(data)
    lowered = lower(imported.graph)
    for sample in samples:
        assignment = lowered.assign(imported.integers(sample))
        output = imported.graph.outputs[0]
        found = imported.floats_of(output, assignment.public[f"output {output}"])
        expected = session.run(None, sample)[0]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= tolerance
    assert faults(lowered.circuit, values_of(lowered, assignment)) == []
    coarse = import_model(data, samples, INT8)
    lower(coarse.graph).assign(coarse.integers(samples[0]))
    return imported


CONSTANTS = {
    "w": weights(5, 12),
    "v": weights(12, 5),
    "b": weights(5),
    "scalar": np.float32(0.7),
    "row": weights(12) + 2,
}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Gemm", "x", "w", "b", transB=1)],
        [node("Gemm", "x", "v", "b", alpha=0.5, beta=2.0)],
        [node("Gemm", "x", "v")],
        [node("MatMul", "x", "v")],
        [node("MatMul", "x", "v", output="m"), node("Transpose", "m", output="t"), node("MatMul", "m", "t")],
        [node("Add", "x", "row")],
        [node("Sub", "row", "x")],
        [node("Add", "x", "x")],
        [node("Mul", "x", "row")],
        [node("Mul", "x", "x")],
        [node("Div", "x", "row")],
        [node("Mul", "x", "scalar"), ],
        [node("Sub", "scalar", "x", output="s"), node("Relu", "s")],
        [node("MatMul", "x", "v", output="m"), node("Add", "m", "b", output="s"), node("Relu", "s")],
        [node("MatMul", "x", "v", output="m"), node("Relu", "m", output="r"), node("Add", "m", "r")],
        [node("MatMul", "x", "v", output="m"), node("Gemm", "x", "v", "b", output="g"), node("Sub", "m", "g")],
        [node("Neg", "x")],
        [node("Identity", "x", output="i"), node("Dropout", "i")],
    ],
    ids=lambda nodes: "-".join(part.op_type for part in nodes),
)  # fmt: skip
def test_products_and_sums(nodes: list[Any]) -> None:
    compare(model(nodes, (3, 12), CONSTANTS), (3, 12), 6e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1]},
        {"pads": [1, 2, 0, 1]},
        {"dilations": [2, 1]},
        {"group": 2},
        {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 1]},
    ],
    ids=str,
)
def test_convolutions(attributes: dict[str, Any]) -> None:
    constants = {"w": weights(8, 4 // attributes.get("group", 1), 3, 2), "b": weights(8)}
    compare(model([node("Conv", "x", "w", "b", **attributes)], PICTURE, constants), PICTURE, 3e-4)


def test_convolutions_of_sequences_and_volumes() -> None:
    compare(model([node("Conv", "x", "w", pads=[1, 1])], (1, 3, 10), {"w": weights(4, 3, 3)}), (1, 3, 10), 3e-4)
    compare(model([node("Conv", "x", "w")], (1, 2, 4, 4, 4), {"w": weights(3, 2, 2, 2, 2)}), (1, 2, 4, 4, 4), 3e-4)


@pytest.mark.parametrize("relu", [False, True])
def test_pooling_behind_a_convolution(relu: bool) -> None:
    """One requantization with the product, whatever the order of Relu and MaxPool."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    first, second = (("Relu", {}), ("MaxPool", pool))[:: 1 if relu else -1]
    nodes = [
        node("Conv", "x", "w", output="c"),
        node(first[0], "c", output="d", **first[1]),
        node(second[0], "d", **second[1]),
    ]
    imported = compare(model(nodes, PICTURE, {"w": weights(3, 4, 2, 1)}), PICTURE, 3e-4)
    assert sum(type(n.operator).__name__ == "Requantize" for n in imported.graph.nodes) == 1


@pytest.mark.parametrize(
    "pool",
    [
        node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2]),
        node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 3], ceil_mode=1),
        node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", "x", kernel_shape=[3, 2], strides=[1, 2]),
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 3], ceil_mode=1),
        node("GlobalAveragePool", "x"),
    ],
    ids=lambda pool: f"{pool.op_type}-{'-'.join(a.name for a in pool.attribute)}",
)
def test_pooling(pool: Any) -> None:
    """Inputs are not negative, so that a padded maximum is exact; the next test has the other case."""
    compare(model([pool], PICTURE, {}), PICTURE, 1e-4, low=0.0)


def test_a_padded_maximum_of_negative_numbers_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"'the MaxPool of y' \(MaxPool\).*not negative"):
        compare(model([node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], PICTURE, {}), PICTURE, 1e-4)


def test_flatten_after_pooling_counts_channels_first() -> None:
    """A published prover flattens rows, columns, channels: the error would be of the size of the output."""
    nodes = [
        node("Conv", "x", "w", output="c"),
        node("MaxPool", "c", output="p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", output="f"),
        node("Gemm", "f", "g", transB=1),
    ]
    constants = {"w": weights(3, 4, 2, 1), "g": weights(6, 3 * 4 * 4)}
    compare(model(nodes, PICTURE, constants), PICTURE, 3e-4)


@pytest.mark.parametrize("ends", [[], [node("MatMul", "z", "m")]], ids=["view", "product"])
def test_shapes(ends: list[Any]) -> None:
    constants = {
        "shape": np.array([2, 36, 4], np.int64),
        "axes": np.array([0], np.int64),
        "starts": np.array([-1, 0], np.int64),
        "ends": np.array([-40, 4], np.int64),
        "along": np.array([1, 2], np.int64),
        "steps": np.array([-3, 2], np.int64),
        "where": np.array([0, 2, 4], np.int64),
        "one": np.array(1, np.int64),
        "m": weights(6, 5),
    }
    nodes = [
        node("Transpose", "x", output="t", perm=[0, 2, 3, 1]),
        node("Reshape", "t", "shape", output="r"),
        node("Slice", "r", "starts", "ends", "along", "steps", output="s"),
        node("Gather", "s", "where", output="g", axis=1),
        node("Concat", "g", "g", "g", output="c", axis=2),
        node("Gather", "c", "one", output="h", axis=0),
        node("Unsqueeze", "h", "axes", output="u"),
        node("Squeeze", "u", "axes", output="z" if ends else "y"),
    ]
    compare(model([*nodes, *ends], PICTURE, constants), PICTURE, 3e-4)


def test_embeddings() -> None:
    graph = helper.make_graph(
        [node("Gather", "table", "x", output="e"), node("MatMul", "e", "w")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.INT64, (5,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (5, 3))],
        [numpy_helper.from_array(weights(10, 6), "table"), numpy_helper.from_array(weights(6, 3), "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    sample = {"x": np.array([3, 9, 0, 0, 7])}
    imported = import_model(data, [sample], wide(16))
    lowered = lower(imported.graph)
    assignment = lowered.assign(imported.integers(sample))
    found = imported.floats_of("y.sums", assignment.public["output y.sums"])
    assert np.abs(found - onnxruntime.InferenceSession(data).run(None, sample)[0]).max() < 3e-4
    assert faults(lowered.circuit, values_of(lowered, assignment)) == []


FACTORS = {
    "half": np.float32(0.5),
    "one": np.float32(1.0),
    "root": np.float32(np.sqrt(2)),
    "cube": np.float32(3),
    "a": np.float32(0.044715),
    "b": np.float32(np.sqrt(2 / np.pi)),
}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sigmoid", "x")],
        [node("Tanh", "x")],
        [node("Sigmoid", "x", output="s"), node("Mul", "x", "s")],
        [node("Gelu", "x")],
        [node("Gelu", "x", approximate="tanh")],
        [node("Div", "x", "root", output="d"), node("Erf", "d", output="e"), node("Add", "e", "one", output="f"),
         node("Mul", "x", "f", output="g"), node("Mul", "g", "half")],
        [node("Pow", "x", "cube", output="c"), node("Mul", "c", "a", output="d"), node("Add", "x", "d", output="e"),
         node("Mul", "e", "b", output="f"), node("Tanh", "f", output="g"), node("Add", "g", "one", output="h"),
         node("Mul", "x", "h", output="i"), node("Mul", "i", "half")],
        [node("HardSwish", "x")],
        [node("LeakyRelu", "x", alpha=0.1)],
        [node("Elu", "x")],
        [node("Clip", "x", "", "one")],
        [node("Clip", "x", "half", "one")],
        [node("Exp", "x")],
        [node("Softplus", "x")],
    ],
    ids=lambda nodes: "-".join(part.op_type for part in nodes),
)  # fmt: skip
def test_functions(nodes: list[Any]) -> None:
    imported = compare(model(nodes, (2, 9), FACTORS), (2, 9), 4e-4)
    if nodes[0].op_type != "Clip":
        assert sum(type(n.operator).__name__ == "Table" for n in imported.graph.nodes) == 1


@pytest.mark.parametrize("behind", [False, True])
def test_softmax(behind: bool) -> None:
    first = [node("MatMul", "x", "v", output="m")] if behind else []
    compare(model([*first, node("Softmax", "m" if behind else "x")], (3, 12), CONSTANTS), (3, 12), 1e-3)


def test_batch_norm_alone_and_behind_a_convolution() -> None:
    norm = {name: weights(4) + 1 for name in ("gamma", "beta", "mean")} | {"variance": np.abs(weights(4)) + 0.5}
    names = ("gamma", "beta", "mean", "variance")
    compare(model([node("BatchNormalization", "x", *names)], PICTURE, norm), PICTURE, 3e-4)
    nodes = [node("Conv", "x", "w", "b", output="c"), node("BatchNormalization", "c", *names)]
    imported = compare(model(nodes, PICTURE, {**norm, "w": weights(4, 4, 3, 3), "b": weights(4)}), PICTURE, 6e-4)
    assert sum(type(n.operator).__name__ == "Contract" for n in imported.graph.nodes) == 1


def test_layer_norm_as_one_node_and_spelled_out() -> None:
    constants = {"gain": weights(12) + 1, "bias": weights(12), "two": np.float32(2), "epsilon": np.float32(1e-5)}
    compare(model([node("LayerNormalization", "x", "gain", "bias")], (3, 12), constants), (3, 12), 6e-4)
    nodes = [
        node("ReduceMean", "x", output="mean", axes=[-1]),
        node("Sub", "x", "mean", output="centred"),
        node("Pow", "centred", "two", output="squares"),
        node("ReduceMean", "squares", output="variance", axes=[-1]),
        node("Add", "variance", "epsilon", output="sum"),
        node("Sqrt", "sum", output="deviation"),
        node("Div", "centred", "deviation", output="unit"),
        node("Mul", "unit", "gain", output="gained"),
        node("Add", "gained", "bias"),
    ]
    compare(model(nodes, (3, 12), constants, opset=17), (3, 12), 6e-4)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Cos", "x")], r"'the Cos of y' \(Cos\).*cannot be proven; known are Abs, Add"),
        ([node("Softmax", "x", axis=0)], r"'the Softmax of y' \(Softmax\).*attribute axis"),
        ([node("MatMul", "x", "v", output="m"), node("Div", "x", "m")], r"'the Div of y' \(Div\)"),
        ([node("ReduceMean", "x")], r"'the ReduceMean of y' \(ReduceMean\)"),
    ],
)
def test_what_cannot_be_proven_is_refused_by_name_and_place(nodes: list[Any], reason: str) -> None:
    constants = {**CONSTANTS, "v": weights(12, 12)}
    with pytest.raises(Unsupported, match=reason):
        import_model(model(nodes, (3, 12), constants), [{"x": weights(3, 12)}], wide(16))


def test_a_model_without_samples_or_with_open_shapes_is_refused() -> None:
    data = model([node("Neg", "x")], (3, 12), {})
    with pytest.raises(InvalidRequest, match="at least one sample"):
        import_model(data, [], INT8)
    with pytest.raises(Unsupported, match="input 'x': expected a fixed length of axis 1"):
        import_model(model([node("Neg", "x")], (None, None), {}), [{"x": weights(3, 12)}], INT8)  # type: ignore[arg-type]


def test_a_transformer_block() -> None:
    """Heads by reshape and transpose, scaled scores, softmax, a residual sum, a norm, a GELU: no view is committed."""
    width, heads, length = 12, 3, 5
    constants = {
        "qkv": weights(width, 3 * width),
        "out": weights(width, width),
        "up": weights(width, 2 * width),
        "down": weights(2 * width, width),
        "gain": weights(width) + 1,
        "bias": weights(width),
        "scale": np.float32(0.5),
        "split": np.array([length, 3, heads, width // heads], np.int64),
        "joined": np.array([length, width], np.int64),
        **{f"at{place}": np.array(place, np.int64) for place in range(3)},
    }
    nodes = [
        node("MatMul", "x", "qkv", output="projected"),
        node("Reshape", "projected", "split", output="parts"),
        node("Transpose", "parts", output="by head", perm=[1, 2, 0, 3]),
        *(node("Gather", "by head", f"at{place}", output=name, axis=0) for place, name in enumerate("qkv")),
        node("Transpose", "k", output="kt", perm=[0, 2, 1]),
        node("MatMul", "q", "kt", output="scores"),
        node("Mul", "scores", "scale", output="scaled"),
        node("Softmax", "scaled", output="shares"),
        node("MatMul", "shares", "v", output="mixed"),
        node("Transpose", "mixed", output="by row", perm=[1, 0, 2]),
        node("Reshape", "by row", "joined", output="flat"),
        node("MatMul", "flat", "out", output="attended"),
        node("Add", "attended", "x", output="middle"),
        node("LayerNormalization", "middle", "gain", "bias", output="normed"),
        node("MatMul", "normed", "up", output="wide"),
        node("Gelu", "wide", output="active"),
        node("MatMul", "active", "down", output="narrow"),
        node("Add", "narrow", "middle"),
    ]
    constants = {("qkv matrix" if name == "qkv" else name): array for name, array in constants.items()}
    nodes[0] = node("MatMul", "x", "qkv matrix", output="projected")
    imported = compare(model(nodes, (length, width), constants), (length, width), 4e-3)
    columns = [source.name for source in lower(imported.graph).circuit.sources if source.kind == "witness"]
    assert not [name for name in columns if "copy" in name and "sum" not in name]


def test_bytes_that_are_no_model_are_refused() -> None:
    data = model([node("Neg", "x")], (3, 12), {})
    for broken in (b"", b"no model at all", data[: len(data) // 2], data.replace(b"Neg", b"Nag")):
        with pytest.raises((BadWeights, Unsupported), match=r"onnx: expected a valid ONNX model|'the Nag of y'"):
            read_model(broken)
    with pytest.raises(BadWeights, match=r"nothing\.onnx: onnx"):
        read_model(Path("nothing.onnx"))
