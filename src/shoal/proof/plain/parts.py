"""Bytes of a proof as Python integers; every length comes from the circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal.core.encoding import decode
from shoal.core.errors import RemoteError
from shoal.proof.circuit import Circuit
from shoal.proof.plain.identities import SumMessages, num_rounds
from shoal.proof.plain.lookups import TreeMessages
from shoal.proof.plain.opening import CodeMessages, Shape, VectorMessages
from shoal.proof.plain.scalars import GOLDILOCKS, Element
from shoal.proof.plain.soundness import num_levels
from shoal.proof.rejected import ProofRejected


@dataclass(frozen=True, slots=True)
class Parts:
    """tree: None without lookups. vectors, codes: one of each for every commitment."""

    root: bytes
    tree: TreeMessages | None
    sums: SumMessages
    vectors: list[VectorMessages]
    codes: list[CodeMessages]


def parse(proof: bytes, circuit: Circuit, shapes: list[Shape], has_witness: bool) -> Parts:
    """Raises ProofRejected."""
    try:
        value = decode(proof)
    except RemoteError as error:
        raise ProofRejected("plain bytes", str(error)) from error
    _require(isinstance(value, dict) and sorted(value) == ["fractions", "identities", "opened", "root", "version"])
    _require(type(value["version"]) is int and value["version"] == 1)
    root, opened = _bytes(value["root"], 32 if has_witness else 0), _array(value["opened"], len(shapes))
    pairs = [_opened(part, shape) for part, shape in zip(opened, shapes, strict=True)]
    tree, sums = _tree(value["fractions"], num_levels(circuit)), _sums(value["identities"], circuit)
    return Parts(root, tree, sums, [vector for vector, _ in pairs], [code for _, code in pairs])


def _tree(value: Any, levels: int) -> TreeMessages | None:
    if not levels:
        _array(value, 0)
        return None
    sides, rounds = _array(value, 2)
    flat, found = _groups(rounds, levels * (levels - 1) // 2, 2), list[list[list[Element]]]()
    for level in range(levels):
        found.append(flat[:level])
        flat = flat[level:]
    return TreeMessages(_groups(sides, levels, 4), found)


def _sums(value: Any, circuit: Circuit) -> SumMessages:
    output, rounds, factors = _array(value, 3)
    num_products = sum(len(identity.pairs) for identity in circuit.identities)
    return SumMessages(
        _elements(output, 1)[0], _groups(rounds, num_rounds(circuit), 3), _groups(factors, num_products, 2)
    )


def _opened(value: Any, shape: Shape) -> tuple[VectorMessages, CodeMessages]:
    ends, rounds, row, columns, path = _array(value, 5)
    share, last = _elements(ends, 2)
    words = _words(columns, shape.queries * shape.rows)
    _require(type(path) is bytes and len(path) % 32 == 0)
    return VectorMessages(share, _groups(rounds, shape.bits, 2), last), CodeMessages(
        _elements(row, 1 << shape.columns),
        [words[i * shape.rows : (i + 1) * shape.rows] for i in range(shape.queries)],
        [path[i : i + 32] for i in range(0, len(path), 32)],
    )


def _groups(value: Any, count: int, size: int) -> list[list[Element]]:
    flat = _elements(value, count * size)
    return [flat[i * size : (i + 1) * size] for i in range(count)]


def _elements(value: Any, count: int) -> list[Element]:
    words = _words(value, 2 * count)
    return list(zip(words[::2], words[1::2], strict=True))


def _words(value: Any, count: int) -> list[int]:
    data = _bytes(value, 8 * count)
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    _require(all(word < GOLDILOCKS.p for word in words))
    return words


def _bytes(value: Any, length: int) -> bytes:
    _require(type(value) is bytes and len(value) == length)
    return bytes(value)


def _array(value: Any, length: int) -> list[Any]:
    _require(type(value) is list and len(value) == length)
    return list(value)


def _require(holds: bool) -> None:
    if not holds:
        raise ProofRejected("plain bytes", "expected the parts that a proof of this circuit has")
