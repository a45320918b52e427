"""Tensors as messages: a short header and the raw buffer, without a copy where nothing is compressed. Never pickle.

    message = magic "ST", header length u16, header, buffer
    header  = canonical CBOR [dtype, shape, coding, zstd, scale bytes]

Codings, for float tensors (the last axis is a row, so a row of activations is one token's):
    raw    the bytes as they are, little-endian
    int8   one float32 scale a row, max|x| / 127:          |error| <= max|row| / 254
    fp8    E4M3 (https://arxiv.org/abs/2209.05433) under one float32 scale a row, max|x| / 448:
           |error| <= max(|x| / 16, max|row| / 448 / 1024)

bfloat16 has no numpy type: it travels as the dtype "bfloat16" over a uint16 view.

Rules that stay true in this file:
- `parse_tensor` gives an array whose size its header said and its bytes fill, or PeerFault, before it allocates more
  than `max_bytes`: neither a shape nor a zstd frame can ask for more;
- values that are not finite survive `raw` only; a compressing `tensor_message` refuses them.

What this does not protect against: wrong numbers. That a peer computed what it sends is the business of `trust`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import zstandard
from numpy.typing import NDArray

from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, PeerFault
from shoal.mesh import parse
from shoal.mesh.calls import MAX_MESSAGE
from shoal.mesh.carrier import Bytes
from shoal.mesh.fp8 import LARGEST, e4m3_bytes, e4m3_values

Coding = Literal["raw", "int8", "fp8"]

MAGIC: Final = b"ST"
MAX_AXES = 8
MAX_HEADER = 256
PREFIX = len(MAGIC) + 2

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2"), "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"), "int32": np.dtype("<i4"), "int16": np.dtype("<i2"), "int8": np.dtype("i1"),
    "uint16": np.dtype("<u2"), "uint8": np.dtype("u1"), "bool": np.dtype("?"),
}  # fmt: skip
COMPRESSIBLE = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Tensor:
    """`values` as they lie in memory; for bfloat16 a uint16 view of them (see `widened`)."""

    dtype: str
    values: NDArray[Any]

    def widened(self) -> NDArray[np.float32]:
        """The values as float32. Exact for float32, float16 and bfloat16."""
        if self.dtype == "bfloat16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32, copy=False)


def bfloat16(values: NDArray[np.float32]) -> Tensor:
    """Rounded to nearest, ties to even. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
    return Tensor("bfloat16", quiet.astype(np.uint16))


def tensor_message(tensor: Tensor, coding: Coding = "raw", zstd_level: int | None = None) -> list[Bytes]:
    """Buffers of one message (`calls.Body`). Raw and contiguous, the tensor's own memory is one of them.

    InvalidRequest for a dtype, a shape or values that the coding cannot carry.
    """
    _check(tensor, coding)
    scales, data = (b"", _bytes_of(tensor.values)) if coding == "raw" else _coded(tensor.widened(), coding)
    if zstd_level is not None:
        data = zstandard.ZstdCompressor(level=zstd_level).compress(data)
    header = encode([tensor.dtype, list(tensor.values.shape), coding, zstd_level is not None, len(scales)])
    return [MAGIC + len(header).to_bytes(2, "little") + header + scales, data]


def parse_tensor(message: Bytes, max_bytes: int = MAX_MESSAGE) -> Tensor:
    """The tensor in a message. Raw, its values are a read-only view of the message's memory."""
    view = memoryview(message).cast("B")
    size = int.from_bytes(view[len(MAGIC) : PREFIX], "little")
    if bytes(view[: len(MAGIC)]) != MAGIC or size > MAX_HEADER or view.nbytes < PREFIX + size:
        raise PeerFault(f"expected a tensor, found {view.nbytes} bytes that do not begin like one")
    head = _parse_header(view[PREFIX : PREFIX + size], max_bytes)
    rest = view[PREFIX + size :]
    if head.scale_bytes > rest.nbytes:
        raise PeerFault(f"expected {head.scale_bytes} bytes of scales, found {rest.nbytes}")
    scales, data = rest[: head.scale_bytes], rest[head.scale_bytes :]
    raw = _unpacked(data, head.data_bytes) if head.is_packed else data
    if len(raw) != head.data_bytes:
        raise PeerFault(f"expected {head.data_bytes} bytes for {head.dtype} {list(head.shape)}, found {len(raw)}")
    if head.coding == "raw":
        if head.dtype == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
            raise PeerFault("expected bools of 0 or 1, found another byte")
        values = np.frombuffer(raw, DTYPES[head.dtype]).reshape(head.shape)
        values.flags.writeable = False
        return Tensor(head.dtype, values)
    return _decoded(head, scales, raw)


@dataclass(frozen=True, slots=True)
class _Header:
    dtype: str
    shape: tuple[int, ...]
    coding: Coding
    is_packed: bool
    scale_bytes: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * (DTYPES[self.dtype].itemsize if self.coding == "raw" else 1)


def _parse_header(data: memoryview, max_bytes: int) -> _Header:
    match parse.message(data, MAX_HEADER):
        case [str(dtype), list(shape), "raw" | "int8" | "fp8" as coding, bool(is_packed), int(scale_bytes)] if (
            dtype in DTYPES and len(shape) <= MAX_AXES and all(type(n) is int and 0 <= n <= max_bytes for n in shape)
        ):
            header = _Header(dtype, tuple(shape), coding, is_packed, scale_bytes)
        case _:
            raise PeerFault("expected a tensor's header [dtype, shape, coding, zstd, scale bytes], found another value")
    if math.prod(max(n, 1) for n in shape) * DTYPES[dtype].itemsize > max_bytes:
        raise PeerFault(f"expected a tensor of at most {max_bytes} bytes, found {dtype} {shape}")
    if coding != "raw" and dtype not in COMPRESSIBLE:
        raise PeerFault(f"expected {coding} of a float tensor, found {dtype}")
    if scale_bytes != (0 if coding == "raw" else 4 * _rows(header.shape)):
        raise PeerFault(f"expected one scale a row of {shape}, found {scale_bytes} bytes of them")
    return header


def _unpacked(data: memoryview, size: int) -> bytes:
    """At most `size` bytes are made, whatever the frame says of itself."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
            out = reader.read(size)
            is_longer = len(reader.read(1)) > 0
    except zstandard.ZstdError as error:
        raise PeerFault(f"expected zstd, found bytes that are not: {error}") from error
    if is_longer:
        raise PeerFault(f"expected {size} bytes under zstd, found more")
    return bytes(out)


def _coded(values: NDArray[np.float32], coding: Coding) -> tuple[bytes, Bytes]:
    rows = values.reshape(_rows(values.shape), -1) if values.size else values.reshape(0, 1)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    scales = (largest / np.float32(127 if coding == "int8" else LARGEST)).astype(np.float32)
    if not values.size:
        return bytes(4 * _rows(values.shape)), b""
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(scales > 0, rows / scales, np.float32(0))
    codes = np.rint(np.clip(unit, -127, 127)).astype(np.int8) if coding == "int8" else e4m3_bytes(unit)
    return scales.tobytes(), _bytes_of(codes)


def _decoded(head: _Header, scales: Bytes, data: Bytes) -> Tensor:
    rows = _rows(head.shape)
    factors = np.frombuffer(scales, "<f4").reshape(rows, 1)
    if not np.isfinite(factors).all() or (factors < 0).any():
        raise PeerFault("expected scales that are finite and not negative, found others")
    codes = np.frombuffer(data, np.int8 if head.coding == "int8" else np.uint8).reshape(rows, -1 if len(data) else 0)
    if head.coding == "fp8" and ((codes & 0x7F) == 0x7F).any():
        raise PeerFault("expected finite fp8 values, found a NaN")
    unit = codes.astype(np.float32) if head.coding == "int8" else e4m3_values(codes)
    values = (unit * factors).reshape(head.shape)
    if head.dtype == "bfloat16":
        return bfloat16(values)
    with np.errstate(over="ignore"):
        return Tensor(head.dtype, values.astype(DTYPES[head.dtype], copy=False))


def _check(tensor: Tensor, coding: Coding) -> None:
    wanted = DTYPES.get(tensor.dtype)
    if wanted is None or tensor.values.dtype != wanted or tensor.values.ndim > MAX_AXES:
        raise InvalidRequest(f"expected {tensor.dtype} of at most {MAX_AXES} axes, found {tensor.values.dtype}"
                             f" {tensor.values.shape}", "tensor")  # fmt: skip
    if coding != "raw" and tensor.dtype not in COMPRESSIBLE:
        raise InvalidRequest(f"expected a float tensor to compress as {coding}, found {tensor.dtype}", "tensor")
    if coding != "raw" and not np.isfinite(tensor.widened()).all():
        raise InvalidRequest(f"expected finite values to compress as {coding}; send them raw", "tensor")


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
