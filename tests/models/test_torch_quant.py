"""Torch's dequantisation equals numpy's bit for bit, for random bytes of every storage type."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from shoal.kernels.quant import dequantize as slow_dequantize
from shoal.models.tensors import BLOCK, Storage
from shoal.models.torch_quant import dequantize

SCALES: dict[str, tuple[int, ...]] = {"Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2),
                                      "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}  # fmt: skip
"""Where each block keeps its float16 scales: made finite, since NaN equals nothing."""


def _random_rows(storage: str, rows: int = 5) -> np.ndarray:
    random = np.random.default_rng(len(storage))
    size = BLOCK[storage][1]
    if storage in ("F32", "F16", "BF16"):
        values = random.standard_normal((rows, 96)).astype(np.float16 if storage == "F16" else np.float32)
        return values.view(np.uint8) if storage != "BF16" else values.view(np.uint16)[:, 1::2].copy().view(np.uint8)
    blocks = random.integers(0, 256, (rows * 3, size), dtype=np.uint8)
    for start in SCALES[storage]:
        scales = random.standard_normal(len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("storage", get_args(Storage))
def test_equal_to_numpy_bit_for_bit(storage: Storage) -> None:
    data = _random_rows(storage)
    elements, size = BLOCK[storage]
    expected = slow_dequantize(storage, data, data.shape[1] // size * elements)
    found = dequantize(torch.from_numpy(data), storage).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert np.unique(found).size > 20


def test_other_dtype_is_rounded_once() -> None:
    data = torch.from_numpy(_random_rows("Q4_1"))
    found = dequantize(data, "Q4_1", torch.bfloat16)
    assert torch.equal(found, dequantize(data, "Q4_1").to(torch.bfloat16))
