"""Tensors through messages and back: bit for bit when raw, within the stated bounds when compressed, or PeerFault."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, PeerFault
from shoal.mesh.fp8 import VALUES, e4m3_bytes
from shoal.mesh.tensors import DTYPES, MAGIC, Coding, Tensor, bfloat16, parse_tensor, tensor_message


def joined(tensor: Tensor, coding: Coding = "raw", zstd_level: int | None = None) -> bytes:
    return b"".join(tensor_message(tensor, coding, zstd_level))


def random_values(seed: int, *shape: int) -> NDArray[np.float32]:
    """Activations as they are: rows of very different size, and a few outliers."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp(rng.standard_normal((*shape[:-1], 1)) * 3)
    values[..., :1] *= 40
    return values.astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 5)])
@pytest.mark.parametrize("zstd_level", [None, 1])
def test_raw_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...], zstd_level: int | None) -> None:
    data = np.random.default_rng(1).bytes(int(np.prod(shape)) * DTYPES[dtype].itemsize)
    data = bytes(b & 1 for b in data) if dtype == "bool" else data
    values = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    back = parse_tensor(joined(Tensor(dtype, values), zstd_level=zstd_level))
    assert (back.dtype, back.values.shape, back.values.tobytes()) == (dtype, shape, data)
    assert not back.values.flags.writeable


def test_raw_copies_nothing() -> None:
    values = random_values(2, 64, 64)
    head, data = tensor_message(Tensor("float32", values))
    assert np.shares_memory(np.frombuffer(data, np.uint8), values)
    message = memoryview(bytes(head) + bytes(data))
    assert np.shares_memory(parse_tensor(message).values, np.frombuffer(message, np.uint8))


def test_what_is_not_contiguous_is_sent_as_what_it_looks_like() -> None:
    values = random_values(3, 6, 8).T[::2]
    assert np.array_equal(parse_tensor(joined(Tensor("float32", values))).values, values)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(7,), (16, 576), (2, 3, 64), (5, 0), (0, 5), (1, 1)])
@pytest.mark.parametrize("zstd_level", [None, 1])
def test_int8_is_within_half_a_step_of_its_row(dtype: str, shape: tuple[int, ...], zstd_level: int | None) -> None:
    sent = made(dtype, random_values(4, *shape) / 16)
    values, got = sent.widened(), parse_tensor(joined(sent, "int8", zstd_level)).widened()
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    assert got.shape == values.shape
    assert np.all(np.abs(got - values) <= largest / 254 * 1.0001 + rounding(dtype, got))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(7,), (16, 576), (2, 3, 64), (5, 0), (0, 5), (1, 1)])
def test_fp8_is_within_a_sixteenth_or_the_smallest_step(dtype: str, shape: tuple[int, ...]) -> None:
    sent = made(dtype, random_values(5, *shape) / 16)
    values, got = sent.widened(), parse_tensor(joined(sent, "fp8")).widened()
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    bound = np.maximum(np.abs(values) / 16, largest / 448 / 1024)
    assert np.all(np.abs(got - values) <= bound * 1.0001 + rounding(dtype, got))


def test_rows_of_zeros_and_of_the_smallest_and_largest_numbers_survive() -> None:
    values = np.array([[0, 0, 0], [1e-45, -1e-45, 0], [3e38, -3e38, 1], [1e-30, 1e-31, -1e-30]], np.float32)
    for coding in ("int8", "fp8"):
        got = parse_tensor(joined(Tensor("float32", values), coding)).values
        assert np.isfinite(got).all()
        assert np.all(np.abs(got - values) <= np.abs(values).max(axis=1, keepdims=True) / 16 + 2e-45)


def test_compressing_makes_it_as_small_as_it_says() -> None:
    values = random_values(6, 32, 576)
    raw, int8 = len(joined(Tensor("float32", values))), len(joined(Tensor("float32", values), "int8"))
    assert int8 < raw / 3.9
    assert len(joined(Tensor("float32", np.zeros_like(values)), zstd_level=1)) < raw / 500


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_unless_raw(value: float) -> None:
    values = np.array([[1.0, value]], np.float32)
    assert parse_tensor(joined(Tensor("float32", values))).values.tobytes() == values.tobytes()
    for coding in ("int8", "fp8"):
        with pytest.raises(InvalidRequest, match="send them raw"):
            tensor_message(Tensor("float32", values), coding)


@pytest.mark.parametrize(
    ("tensor", "coding"),
    [
        (Tensor("float32", np.zeros(3, np.float64)), "raw"),
        (Tensor("complex64", np.zeros(3, np.complex64)), "raw"),
        (Tensor("int32", np.zeros(3, np.int32)), "int8"),
        (Tensor("float32", np.zeros((1,) * 9, np.float32)), "raw"),
        (Tensor("object", np.array([None])), "raw"),
    ],
)
def test_what_has_no_message_is_refused(tensor: Tensor, coding: Coding) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        tensor_message(tensor, coding)


def test_e4m3_is_what_torch_says_it_is() -> None:
    """The oracle is torch.float8_e4m3fn, code by code and value by value, halfway cases included."""
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float32).numpy()
    assert np.array_equal(VALUES, theirs, equal_nan=True)
    finite = VALUES[:127]
    rng = np.random.default_rng(7)
    spread = (rng.standard_normal(20_000) * np.exp(rng.standard_normal(20_000) * 4)).astype(np.float32)
    values = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, np.clip(spread, -448, 448)]).astype(np.float32)
    values = np.concatenate([values, -values])
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(e4m3_bytes(values), expected)


def test_bfloat16_is_what_torch_says_it_is() -> None:
    values = np.concatenate([random_values(8, 5000), np.array([np.nan, np.inf, -0.0, 3.4e38, 1e-45], np.float32)])
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(bfloat16(values).values[:-5], theirs.view(torch.uint16).numpy()[:-5])
    assert np.array_equal(bfloat16(values).widened(), theirs.to(torch.float32).numpy(), equal_nan=True)


# ---- what strangers send ------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_a_tensor_or_a_fault(data: bytes) -> None:
    for message in (data, MAGIC + data, MAGIC + len(data).to_bytes(2, "little") + data):
        with contextlib.suppress(PeerFault):
            assert isinstance(parse_tensor(message), Tensor)


ODD = st.one_of(
    st.integers(-5, 2**64 - 1), st.text(max_size=4), st.none(), st.booleans(), st.lists(st.integers(0, 9), max_size=10)
)


@given(
    st.sampled_from([*DTYPES, "object"]) | ODD, st.lists(st.integers(0, 9) | ODD, max_size=9) | ODD,
    st.sampled_from(["raw", "int8", "fp8", "pickle"]) | ODD, st.booleans() | ODD, st.integers(0, 64) | ODD,
    st.binary(max_size=200),
)  # fmt: skip
@settings(max_examples=400)
def test_any_header_is_a_tensor_or_a_fault(
    dtype: Any, shape: Any, coding: Any, packed: Any, scales: Any, body: bytes
) -> None:
    header = encode([dtype, shape, coding, packed, scales])
    try:
        tensor = parse_tensor(MAGIC + len(header).to_bytes(2, "little") + header + body, max_bytes=10_000)
    except PeerFault:
        return
    assert tensor.values.nbytes <= 10_000
    assert tensor.values.dtype == DTYPES[tensor.dtype]


@given(st.data())
def test_a_flipped_byte_is_a_tensor_or_a_fault(data: st.DataObject) -> None:
    coding, level = data.draw(st.sampled_from(["raw", "int8", "fp8"])), data.draw(st.sampled_from([None, 1]))
    message = bytearray(joined(Tensor("float32", random_values(9, 3, 5)), coding, level))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(message)))
    for piece in (message, message[:cut]):
        with contextlib.suppress(PeerFault):
            parse_tensor(piece)


@pytest.mark.parametrize("shape", [[2**40, 2**40], [2**27, 0, 2**27], [10**6, 10**6], [2**28 + 1]])
def test_a_shape_cannot_ask_for_more_than_is_allowed(shape: list[int]) -> None:
    header = encode(["float32", shape, "raw", False, 0])
    with pytest.raises(PeerFault, match="expected a tensor"):
        parse_tensor(MAGIC + len(header).to_bytes(2, "little") + header)


def test_a_bool_is_0_or_1() -> None:
    message = joined(Tensor("bool", np.array([True, False])))[:-1] + b"\x02"
    with pytest.raises(PeerFault, match="0 or 1"):
        parse_tensor(message)


def test_a_zstd_bomb_is_stopped_at_the_size_that_was_said() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(200_000_000))
    assert len(bomb) < 50_000
    header = encode(["uint8", [100], "raw", True, 0])
    began = time.process_time()
    with pytest.raises(PeerFault, match="found more"):
        parse_tensor(MAGIC + len(header).to_bytes(2, "little") + header + bomb)
    assert time.process_time() - began < 0.1


def made(dtype: str, values: NDArray[np.float32]) -> Tensor:
    if dtype == "bfloat16":
        return bfloat16(values)
    return Tensor(dtype, values.astype(DTYPES[dtype]))


def rounding(dtype: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What writing a value in `dtype` may move it by."""
    bits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    return np.abs(values) * np.float32(2.0**-bits) + np.float32(2**-25 if dtype == "float16" else 1e-44)
