"""Bit-exactness of dequantising and quantising against the `gguf` package, on random and on degenerate bytes."""

import gguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from shoal.kernels.quant import BLOCK, dequantize, quantize_q4_0, quantize_q4_1, quantize_q8_0, row_bytes

QUANTIZE = {"Q8_0": quantize_q8_0, "Q4_0": quantize_q4_0, "Q4_1": quantize_q4_1}


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    both_nan = np.isnan(found) & np.isnan(expected) if found.dtype == np.float32 else np.zeros(found.shape, bool)
    same = found.view(f"u{found.itemsize}") == expected.view(f"u{found.itemsize}")
    assert (same | both_nan).all()


@pytest.mark.parametrize("storage", BLOCK)
def test_block_sizes_are_ggml_s(storage):
    assert BLOCK[storage] == GGML_QUANT_SIZES[GGMLQuantizationType[storage]]


@pytest.mark.parametrize("storage", BLOCK)
def test_dequantize_is_bit_exact_on_random_bytes(storage):
    data = np.random.default_rng(1).integers(0, 256, (33, row_bytes(storage, 512)), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(data, GGMLQuantizationType[storage])
    assert_same_bits(dequantize(storage, data, 512), expected.reshape(33, 512))


@pytest.mark.parametrize("storage", BLOCK)
def test_dequantize_reads_unaligned_and_strided_views(storage):
    size = row_bytes(storage, 256)
    buffer = np.random.default_rng(2).integers(0, 256, 2 * size + 1, dtype=np.uint8)
    expected = dequantize(storage, buffer[1:].copy(), 256)
    assert_same_bits(dequantize(storage, buffer[1:], 256), expected)
    assert_same_bits(dequantize(storage, buffer[1:].reshape(2, size)[::-1], 256), expected[::-1].copy())


@pytest.mark.parametrize("storage", QUANTIZE)
@pytest.mark.parametrize("kind", ["normal", "zeros", "constant", "halves", "tiny", "one spike"])
def test_quantize_is_bit_exact(storage, kind):
    values = np.random.default_rng(3).standard_normal((17, 96)).astype(np.float32)
    match kind:
        case "zeros":
            values[:] = 0
        case "constant":
            values[:] = -1.25
        case "halves":
            values = np.round(values * 8) / 2
            values[:, ::32] = 127
        case "tiny":
            values *= np.float32(1e-6)
        case "one spike":
            values[:, 5] = 1000
    with np.errstate(all="ignore"):
        expected = gguf.quantize(values, GGMLQuantizationType[storage])
    assert_same_bits(QUANTIZE[storage](values), expected)


@pytest.mark.parametrize("storage", QUANTIZE)
def test_quantized_values_come_back_within_a_step(storage):
    values = np.random.default_rng(4).uniform(-1, 1, (64, 128)).astype(np.float32)
    back = dequantize(storage, QUANTIZE[storage](values), 128)
    step = {"Q8_0": 1 / 127, "Q4_0": 1 / 8, "Q4_1": 2 / 15}[storage]
    assert np.abs(back - values).max() <= step * 1.01


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 32 columns, found 33"):
        dequantize("Q4_0", np.zeros(18, np.uint8), 33)
    with pytest.raises(ValueError, match="18 bytes each, found 17 bytes"):
        dequantize("Q4_0", np.zeros(17, np.uint8), 32)
    with pytest.raises(ValueError, match="multiple of 32 columns, found 8"):
        quantize_q8_0(np.zeros((1, 8), np.float32))
