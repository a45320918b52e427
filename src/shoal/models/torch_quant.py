"""ggml's storage types turned into floats on the device the bytes lie on: the torch twin of `kernels.quant`.

Every function takes blocks, uint8 (blocks, bytes per block), and returns float32 (blocks, elements per block). Products
and sums are in ggml's order, so results equal numpy's bit for bit. Layouts: ggml's `ggml-common.h`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from shoal.models.tensors import BLOCK, Storage

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def dequantize(data: torch.Tensor, storage: Storage, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Bytes of whole rows, uint8 (rows, bytes per row), as floats (rows, columns)."""
    if storage in _PLAIN:
        return data.view(_PLAIN[storage]).to(dtype)
    _, size_bytes = BLOCK[storage]
    blocks = data.reshape(-1, size_bytes)
    return _DECODERS[storage](blocks).view(data.shape[0], -1).to(dtype)


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The float16 at byte `start` of each block, as float32 (blocks, 1)."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).to(torch.float32)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """(..., n) bytes to (..., 2 n) values 0..15: all low nibbles, then all high ones."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)


def _bits(packed: torch.Tensor) -> torch.Tensor:
    """(blocks, 4) bytes to (blocks, 32) bits, least significant first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> shifts) & 1).flatten(1)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8).to(torch.float32) * _half(blocks, 0)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return (_nibbles(blocks[:, 2:]).to(torch.float32) - 8.0) * _half(blocks, 0)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _nibbles(blocks[:, 4:]).to(torch.float32) * _half(blocks, 0) + _half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 6:]) | (_bits(blocks[:, 2:6]) << 4)
    return (values.to(torch.float32) - 16.0) * _half(blocks, 0)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 8:]) | (_bits(blocks[:, 4:8]) << 4)
    return values.to(torch.float32) * _half(blocks, 0) + _half(blocks, 2)


def _k_scales(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight 6-bit scales and minimums out of 12 bytes: each float32 (blocks, 8, 1)."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat([low & 63, (high & 15) | ((low >> 6) << 4)], dim=1)
    minimums = torch.cat([middle & 63, (high >> 4) | ((middle >> 6) << 4)], dim=1)
    return scales.to(torch.float32)[:, :, None], minimums.to(torch.float32)[:, :, None]


def _k_affine(blocks: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """d * scale * value - dmin * minimum over eight groups of 32; `values` is (blocks, 8, 32)."""
    scales, minimums = _k_scales(blocks[:, 4:16])
    d, dmin = _half(blocks, 0)[:, :, None], _half(blocks, 2)[:, :, None]
    return ((d * scales) * values.to(torch.float32) - dmin * minimums).flatten(1)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _k_affine(blocks, _nibbles(blocks[:, 16:].unflatten(1, (4, 32))).reshape(-1, 8, 32))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    low = _nibbles(blocks[:, 48:].unflatten(1, (4, 32))).reshape(-1, 8, 32)
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)[:, None]
    high = (blocks[:, None, 16:48] >> shifts) & 1  # bit g of byte i is the fifth bit of element i of group g
    return _k_affine(blocks, low | (high << 4))


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64)))  # (blocks, 2, 128)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device)[:, None]
    high = (blocks[:, 128:192].unflatten(1, (2, 1, 32)) >> shifts) & 3  # (blocks, 2, 4, 32)
    values = (low | (high.flatten(2) << 4)).reshape(-1, 16, 16).to(torch.float32) - 32.0
    scales = blocks[:, 192:208].view(torch.int8).to(torch.float32)
    return ((_half(blocks, 208) * scales)[:, :, None] * values).flatten(1)


_DECODERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1,
    "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
