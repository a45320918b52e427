"""The statement as the transcript hears it: digests of the circuit and of named tensors, written out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from blake3 import blake3

from shoal.core.encoding import encode
from shoal.proof.circuit import Circuit
from shoal.proof.plain.coins import HashCoins
from shoal.proof.plain.places import Tensor


def begin(circuit: Circuit, shapes: list[list[int]], weights: bytes, public: Mapping[str, Tensor]) -> HashCoins:
    """Coins that have heard everything but the proof. shapes: rows, column bits, rate bits, queries of commitments."""
    coins = HashCoins()
    coins.hear_bytes("protocol", b"shoal proof: logUp-GKR, batched sumcheck, Ligero")
    coins.hear_bytes("version", (1).to_bytes(8, "little"))
    coins.hear_bytes("field", b"GF(p)[x]/(x^2-7), p = 2^64-2^32+1")
    coins.hear_bytes("circuit", _hash("shoal proof circuit v1", encode(_listed(circuit))))
    for number in (number for shape in shapes for number in shape):
        coins.hear_bytes("commitment shape", number.to_bytes(8, "little"))
    coins.hear_bytes("weights", weights)
    coins.hear_bytes("public", tensors_digest(public))
    return coins


def tensors_digest(tensors: Mapping[str, Tensor]) -> bytes:
    return _hash("shoal proof arrays v1", encode({name: tensor_digest(tensor) for name, tensor in tensors.items()}))


def tensor_digest(tensor: Tensor) -> bytes:
    """Of the shape and the numbers, in as few of 8, 16, 32 or 64 signed bits as hold them all."""
    width = next(
        bits for bits in (8, 16, 32, 64) if all(-(2 ** (bits - 1)) <= v < 2 ** (bits - 1) for v in tensor.flat)
    )
    numbers = b"".join(value.to_bytes(width // 8, "little", signed=True) for value in tensor.flat)
    return _hash("shoal proof array v1", encode([list(tensor.shape), width]) + numbers)


def _hash(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=purpose).digest()


def _listed(value: Any) -> Any:
    """Dataclasses as lists of their fields in order, tensors as digests, integers beyond 63 bits as text."""
    if hasattr(value, "tolist"):
        return tensor_digest(Tensor.of(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [_listed(getattr(value, item.name)) for item in fields(value)]
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(part) for part in value]
    return {"integer": str(value)} if isinstance(value, int) and not -(2**63) < value < 2**63 else value
