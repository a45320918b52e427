"""What every checkpoint is checked for, whichever file it came from: the tensors a network reads, no more, no fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from shoal.core.errors import BadWeights
from shoal.kernels.quant import dequantize
from shoal.models.config import ModelConfig
from shoal.models.names import expected_shapes
from shoal.models.tensors import Tensor


def checked_weights(file: str, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, vectors as F32. BadWeights for one that is missing, unknown or of another shape."""
    _check_config(file, config)
    expected = expected_shapes(config)
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise BadWeights(file, f"tensor {unknown[0]}", f"only tensors that {config.family} reads", _count(unknown))
    missing = [name for name in expected if name not in weights]
    if missing:
        raise BadWeights(file, f"tensor {missing[0]}", f"shape {expected[missing[0]]}", f"nothing; {_count(missing)}")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise BadWeights(file, f"tensor {name}", f"shape {shape}", f"{weights[name].shape}")
    return {name: _plain_vector(weights[name]) for name in expected}


def _check_config(file: str, config: ModelConfig) -> None:
    if config.num_heads % config.num_kv_heads:
        expected = f"a divisor of the {config.num_heads} query heads"
        raise BadWeights(file, "key-value heads", expected, str(config.num_kv_heads))
    if config.head_dim % 2:
        raise BadWeights(file, "head dimension", "an even number", str(config.head_dim))


def _count(names: list[str]) -> str:
    return f"{len(names)} such: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _plain_vector(tensor: Tensor) -> Tensor:
    """Vectors are tiny: as F32 no speaker needs another path for them."""
    if len(tensor.shape) != 1 or tensor.storage == "F32":
        return tensor
    values = dequantize(tensor.storage, tensor.data, tensor.shape[0])
    return replace(tensor, storage="F32", data=values.view(np.uint8))
