"""Weights in torch: views of the file where possible, the same numbers however they are stored or cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shoal.core.errors import BadWeights
from shoal.kernels.quant import dequantize, quantize_q8_0
from shoal.models.tensors import Tensor
from shoal.models.tiny import tiny_checkpoint
from shoal.models.torch_weights import CHUNK_ELEMENTS, TorchWeights

CPU = torch.device("cpu")


def test_float32_on_the_cpu_copies_nothing() -> None:
    checkpoint = tiny_checkpoint(storage="Q4_1")
    weights = TorchWeights(checkpoint.weights, CPU, torch.float32)
    for name, tensor in checkpoint.weights.items():
        assert weights._tensors[name].data.data_ptr() == tensor.data.ctypes.data, name


def test_a_matrix_larger_than_a_chunk_multiplies_like_a_whole_one() -> None:
    rows = CHUNK_ELEMENTS // 32 + 77
    random = np.random.default_rng(0)
    values = random.standard_normal((rows, 32), dtype=np.float32)
    data = quantize_q8_0(values)
    weights = TorchWeights({"w": Tensor("w", values.shape, "Q8_0", data)}, CPU, torch.float32)
    x = random.standard_normal((3, 32), dtype=np.float32)
    found = weights.matmul(torch.from_numpy(x), "w").numpy()
    expected = x.astype(np.float64) @ dequantize("Q8_0", data, 32).T.astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bfloat16_converts_matrices_and_keeps_vectors() -> None:
    checkpoint = tiny_checkpoint("mixtral", storage="Q8_0")
    exact = TorchWeights(checkpoint.weights, CPU, torch.float32)
    rounded = TorchWeights(checkpoint.weights, CPU, torch.bfloat16)
    ids = torch.tensor([5, 0, 258])
    assert torch.equal(rounded.rows("token_embd.weight", ids), exact.rows("token_embd.weight", ids).bfloat16())
    assert torch.equal(rounded.vector("output_norm.weight"), exact.vector("output_norm.weight"))
    x = torch.eye(64)
    for expert in range(4):
        one, other = (w.matmul(x.to(w.dtype), "blk.0.ffn_up_exps.weight", expert) for w in (exact, rounded))
        assert torch.equal(one.bfloat16(), other)


def test_a_missing_weight_is_named() -> None:
    weights = TorchWeights({}, CPU, torch.float32)
    with pytest.raises(BadWeights) as caught:
        weights.vector("output_norm.weight")
    assert caught.value.field == "output_norm.weight"
    assert "output_norm.weight" not in weights
