"""The models and inputs of the proof benchmark, one ONNX file for all systems."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.proof.samples import onnx_models
from shoal.proof.samples.glyphs import glyphs

MODELS = ("lenet", "gemm512", "gemm1024", "mlp")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0},
    "Conv": {"dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "MaxPool": {"dilations": [1, 1], "pads": [0, 0, 0, 0], "ceil_mode": 0},
}
"""Written out as torch's exporter writes them: JSTprove's operators have no defaults."""


def model_of(name: str) -> bytes:
    import onnx

    made = {
        "lenet": onnx_models.trained_lenet,
        "gemm512": lambda: onnx_models.gemm(512),
        "gemm1024": lambda: onnx_models.gemm(1024),
        "mlp": lambda: onnx_models.dense((512, 512, 512)),
    }
    model = onnx.load_model_from_string(made[name]())
    for node in model.graph.node:
        have = {attribute.name for attribute in node.attribute}
        missing = {key: value for key, value in _DEFAULTS.get(node.op_type, {}).items() if key not in have}
        node.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in missing.items())
    data: bytes = model.SerializeToString()
    return data


def inputs_of(name: str) -> npt.NDArray[np.float32]:
    """(16, *shape of the input): the first is proven, all are calibrated on."""
    if name == "lenet":
        return glyphs(16, seed=5).pictures[:, None]
    width = 1024 if name == "gemm1024" else 512
    return np.random.default_rng(5).uniform(0, 1, (16, 1, width)).astype(np.float32)


def float_output(name: str) -> npt.NDArray[np.float64]:
    """What the float model gives for the first input, flat."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_model_from_string(model_of(name))
    found = ReferenceEvaluator(model).run(None, {"input": inputs_of(name)[0]})
    return np.ravel(found[0]).astype(np.float64)
