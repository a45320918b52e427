"""Ligero (Ames, Hazay, Ishai, Venkitasubramaniam, 2017): commits to a vector, opens its extension at one random point.

The vector is a matrix of rows x 2^c; every row is encoded, the columns of the codewords are hashed into a Merkle tree.
To open at a point (row part, column part) the prover sends the rows' combination by eq(row part, .); the verifier takes
the value from it, and compares its codeword with the combination of a few columns of the commitment. As the point is
drawn after the commitment, the one combination also shows that the columns are near codewords: `parameters` counts it.

Hides nothing: an opening shows a combination of all rows, and columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shoal.crypto import merkle
from shoal.crypto.merkle import BadMerkleProof, Tree
from shoal.crypto.transcript import Transcript
from shoal.proof import columns as column_hashes
from shoal.proof import field, multilinear, native, ntt, twin
from shoal.proof.field import Base, Ext
from shoal.proof.parameters import Parameters
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import Element

KEPT_BYTES = 1 << 29
"""Codewords up to this size are kept until they are opened; greater ones are encoded again."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What the prover keeps. rows: the vector as a matrix. code: all codewords, or None to encode again."""

    params: Parameters
    rows: Base
    code: Base | None
    tree: Tree

    @property
    def root(self) -> bytes:
        return self.tree.root


@dataclass(frozen=True, slots=True)
class Opening:
    """row: the combination, (columns, 2). columns: (queries, rows), by rising position. digests: Merkle's, in order."""

    row: Ext
    columns: Base
    digests: tuple[bytes, ...]


def commit(values: Base, params: Parameters) -> Commitment:
    """Commits to `values` (n,), n at most `params.size`; the rest is zero. Full ones are kept as a view, not a copy."""
    if not 0 < len(values) <= params.size:
        raise ValueError(f"expected 1 to {params.size} numbers, found {len(values)}")
    if len(values) < params.size:
        values = np.concatenate([values, np.zeros(params.size - len(values), np.uint64)])
    rows = values.reshape(params.rows, params.columns)
    code = None
    if 8 * params.rows * params.length <= KEPT_BYTES:
        code = ntt.encode(rows, 1 << params.rate_bits)
    blocks = _blocks(rows, params) if code is None else _slices(code)
    leaves = column_hashes.column_digests(blocks, params.rows, params.length)
    return Commitment(params, rows, code, column_hashes.tree(leaves))


def open_at(commitment: Commitment, point: Ext, transcript: Transcript) -> Opening:
    """Opens at `point` (params.bits, 2), drawn after the root was absorbed. Absorbs the row, draws the queries."""
    params = commitment.params
    row = combine_rows(commitment.rows, _row_weights(params, point))
    queries = _queries(params, row, transcript)
    if commitment.code is not None:
        opened = commitment.code[:, queries]
    else:
        opened = np.concatenate([block[:, queries] for block in _blocks(commitment.rows, params)])
    return Opening(row, np.ascontiguousarray(opened.T), tuple(commitment.tree.prove(queries)))


def check(
    root: bytes, params: Parameters, point: Ext, value: Element, opening: Opening, transcript: Transcript
) -> None:
    """Whether the vector committed to by `root` has the extension `value` at `point`. Raises ProofRejected if not.

    `params` are the verifier's own. Arrays of the opening may have any shape and any words: they are checked here.
    """
    check_shapes(params, opening)
    check_value(params, point, value, opening)
    queries = _queries(params, opening.row, transcript)
    check_paths(root, params, queries, opening)
    check_code(params, point, queries, opening)


def check_shapes(params: Parameters, opening: Opening) -> None:
    """Sizes as the parameters say, every element canonical."""
    wanted = ((params.columns, 2), (params.queries, params.rows))
    found = (opening.row.shape, opening.columns.shape)
    if found != wanted or any(array.dtype != np.uint64 for array in (opening.row, opening.columns)):
        raise ProofRejected("opening.shapes", f"expected arrays of field elements {wanted}, found {found}")
    if not (field.is_canonical(opening.row) and field.is_canonical(opening.columns)):
        raise ProofRejected("opening.shapes", "expected elements below the field's modulus, found a greater one")


def check_value(params: Parameters, point: Ext, value: Element, opening: Opening) -> None:
    """The combined row gives the value."""
    found = field.dot_ext(opening.row, multilinear.eq_table(point[params.row_bits :]))
    if found != value:
        raise ProofRejected("opening.value", f"expected {value} at the point, the opened row gives {found}")


def check_paths(root: bytes, params: Parameters, queries: list[int], opening: Opening) -> None:
    """The columns are the committed ones."""
    leaves = [
        (query, merkle.leaf_digest(column_hashes.column_bytes(column)))
        for query, column in zip(queries, opening.columns, strict=True)
    ]
    try:
        merkle.check(root, params.depth, leaves, opening.digests)
    except BadMerkleProof as error:
        raise ProofRejected("opening.paths", str(error)) from error


def check_code(params: Parameters, point: Ext, queries: list[int], opening: Opening) -> None:
    """At the queried positions the row's codeword is the combination of the columns."""
    both = ntt.encode(np.ascontiguousarray(opening.row.T), 1 << params.rate_bits)
    wanted = both[:, queries].T
    found = combine_rows(np.ascontiguousarray(opening.columns.T), _row_weights(params, point))
    if (wanted != found).any():
        bad = [query for query, differs in zip(queries, (wanted != found).any(axis=1), strict=True) if differs]
        raise ProofRejected("opening.code", f"expected the row's codeword in the columns, found others at {bad[:8]}")


def combine_rows(rows: Base, weights: Ext) -> Ext:
    """sum over i of weights[i] * rows[i]: (n, C) and (n, 2) -> (C, 2)."""
    call = native.function("proof_combine_rows", "pqqpp")
    if call is None:
        return np.stack([twin.total(twin.mul(rows, weights[:, k, None])) for k in (0, 1)], axis=-1)
    rows, weights, out = np.ascontiguousarray(rows), np.ascontiguousarray(weights), np.empty((rows.shape[1], 2), "u8")
    call(native.pointer(rows), *rows.shape, native.pointer(weights), native.pointer(out))
    return out


def _row_weights(params: Parameters, point: Ext) -> Ext:
    if point.shape != (params.bits, 2):
        raise ValueError(f"expected a point of {params.bits} coordinates, found shape {point.shape}")
    return multilinear.eq_prefix(point[: params.row_bits], params.rows)


def _queries(params: Parameters, row: Ext, transcript: Transcript) -> list[int]:
    transcript.absorb_elements("opening row", row)
    return transcript.indices("opening queries", params.queries, params.length)


def _slices(code: Base) -> Iterator[Base]:
    step = column_hashes.BLOCK_ROWS
    return (code[start : start + step] for start in range(0, len(code), step))


def _blocks(rows: Base, params: Parameters) -> Iterator[Base]:
    """Codewords of 128 rows at a time."""
    return (ntt.encode(block, 1 << params.rate_bits) for block in _slices(rows))
