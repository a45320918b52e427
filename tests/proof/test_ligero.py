"""An honest opening is accepted; another value, row, column, path, root, point or shape is not."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from shoal.crypto.transcript import Transcript
from shoal.proof import columns, field, ligero, multilinear, native, ntt, scalars
from shoal.proof.ligero import Commitment, Opening
from shoal.proof.parameters import Parameters, choose_params
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import Element, P

SMALL = Parameters(rows=3, column_bits=4, rate_bits=2, queries=10)


def vector(length: int) -> field.Base:
    return np.random.default_rng(length).integers(0, P, length, np.uint64)


def drawn(root: bytes, params: Parameters) -> tuple[Transcript, field.Ext]:
    """A transcript that knows the root, and a point drawn from it."""
    transcript = Transcript("test v1")
    transcript.absorb("root", root)
    return transcript, transcript.challenges("point", params.bits)


def value_at(values: field.Base, params: Parameters, point: field.Ext) -> Element:
    return multilinear.evaluate(np.concatenate([values, np.zeros((1 << params.bits) - len(values), np.uint64)]), point)


def opened(values: field.Base, params: Parameters) -> tuple[Commitment, Element, Opening]:
    commitment = ligero.commit(values, params)
    transcript, point = drawn(commitment.root, params)
    return commitment, value_at(values, params, point), ligero.open_at(commitment, point, transcript)


def check(root: bytes, params: Parameters, value: Element, opening: Opening) -> None:
    transcript, point = drawn(root, params)
    ligero.check(root, params, point, value, opening, transcript)


@pytest.mark.parametrize("length", [1, 16, 17, 48, 100, 1000, 5000])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_honest_openings_are_accepted(length: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    params = choose_params(length, 20)
    commitment, value, opening = opened(vector(length), params)
    check(commitment.root, params, value, opening)


@pytest.mark.parametrize("rows", [1, 2, 5, 200])
def test_encoding_again_gives_the_same(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    params = replace(SMALL, rows=rows)
    values = vector(params.size - 3)
    kept, value, opening = opened(values, params)
    monkeypatch.setattr(ligero, "KEPT_BYTES", 0)
    again, _, other = opened(values, params)
    assert kept.code is not None
    assert again.code is None
    assert kept.root == again.root
    assert (opening.columns == other.columns).all()
    assert opening.digests == other.digests
    check(again.root, params, value, other)


def test_c_and_numpy_make_the_same_commitment(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [ligero.commit(vector(3000), choose_params(3000, 100)).root]
    monkeypatch.setattr(native, "library", lambda: None)
    roots.append(ligero.commit(vector(3000), choose_params(3000, 100)).root)
    assert roots[0] == roots[1]


def test_another_value_is_rejected() -> None:
    commitment, value, opening = opened(vector(40), SMALL)
    check(commitment.root, SMALL, value, opening)
    for wrong in ((value[0] + 1, value[1]), (value[0], value[1] ^ 1), (0, 0)):
        with pytest.raises(ProofRejected, match=r"opening\.value"):
            check(commitment.root, SMALL, wrong, opening)


def test_a_row_made_for_a_wrong_value_is_rejected() -> None:
    """The row is altered so that it gives the wrong value: only the columns can tell."""
    commitment, value, _ = opened(vector(40), SMALL)
    transcript, point = drawn(commitment.root, SMALL)
    wrong = scalars.add(value, scalars.ONE)
    row = ligero.combine_rows(commitment.rows, multilinear.eq_prefix(point[:2], 3))
    first = field.element(multilinear.eq_table(point[2:])[0])
    row[0] = scalars.add(field.element(row[0]), scalars.inverse(first))
    transcript.absorb_elements("opening row", row)
    queries = transcript.indices("opening queries", SMALL.queries, SMALL.length)
    code = ntt.encode(commitment.rows, 4)
    forged = Opening(row, np.ascontiguousarray(code[:, queries].T), tuple(commitment.tree.prove(queries)))
    with pytest.raises(ProofRejected, match=r"opening\.code"):
        check(commitment.root, SMALL, wrong, forged)


def test_every_byte_counts() -> None:
    commitment, value, opening = opened(vector(40), SMALL)
    parts = [opening.row.tobytes(), opening.columns.tobytes(), b"".join(opening.digests)]
    whole = b"".join(parts)
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        row, rest = flipped[: len(parts[0])], flipped[len(parts[0]) :]
        columns_, digests = rest[: len(parts[1])], bytes(rest[len(parts[1]) :])
        forged = Opening(
            np.frombuffer(row, np.uint64).reshape(opening.row.shape),
            np.frombuffer(columns_, np.uint64).reshape(opening.columns.shape),
            tuple(digests[i : i + 32] for i in range(0, len(digests), 32)),
        )
        with pytest.raises(ProofRejected):
            check(commitment.root, SMALL, value, forged)


def test_parts_of_another_shape_or_not_canonical_are_rejected() -> None:
    commitment, value, opening = opened(vector(40), SMALL)
    row, cols = opening.row, opening.columns
    grown = row.copy()
    grown[0, 0] = P
    shapes = [
        replace(opening, row=row[:-1]), replace(opening, row=row[:, :1]), replace(opening, row=row.reshape(-1)),
        replace(opening, columns=cols[:-1]), replace(opening, columns=cols[:, :-1]), replace(opening, row=grown),
        replace(opening, columns=np.full_like(cols, P)), replace(opening, row=row.astype(np.int64)),
        replace(opening, columns=cols.T),
    ]  # fmt: skip
    for bad in shapes:
        with pytest.raises(ProofRejected, match=r"opening\.shapes"):
            check(commitment.root, SMALL, value, bad)
    for digests in (opening.digests[:-1], (*opening.digests, bytes(32)), opening.digests[::-1]):
        with pytest.raises(ProofRejected, match=r"opening\.paths"):
            check(commitment.root, SMALL, value, replace(opening, digests=digests))


def test_another_root_point_or_shape_is_rejected() -> None:
    commitment, value, opening = opened(vector(40), SMALL)
    other = ligero.commit(vector(41), SMALL)
    for params in (replace(SMALL, rows=2), replace(SMALL, rate_bits=3), replace(SMALL, queries=9),
                   replace(SMALL, column_bits=5)):  # fmt: skip
        with pytest.raises(ProofRejected):
            check(commitment.root, params, value, opening)
    with pytest.raises(ProofRejected):
        check(other.root, SMALL, value, opening)
    transcript, point = drawn(commitment.root, SMALL)
    with pytest.raises(ProofRejected, match=r"opening\.paths"):
        ligero.check(other.root, SMALL, point, value, opening, transcript)
    transcript, point = drawn(commitment.root, SMALL)
    moved = point.copy()
    moved[0] = point[1]
    with pytest.raises(ProofRejected, match=r"opening\.code"):  # the row's part: the value stays
        ligero.check(commitment.root, SMALL, moved, value, opening, transcript)


def test_columns_far_from_codewords_are_caught_as_often_as_promised() -> None:
    """A cheat commits to codewords with just enough wrong columns that no one word is nearest, and hopes."""
    params = Parameters(rows=2, column_bits=4, rate_bits=2, queries=2)
    bad = (params.length - params.columns) // 2 + 1
    rng, accepted, trials = np.random.default_rng(1), 0, 400
    for _ in range(trials):
        rows = rng.integers(0, P, (2, 16), np.uint64)
        code = ntt.encode(rows, 4)
        wrong = rng.permutation(params.length)[:bad]
        code[:, wrong] = rng.integers(0, P, (2, bad), np.uint64)
        tree = columns.tree(columns.column_digests(iter([code]), 2, params.length))
        commitment = Commitment(params, rows, code, tree)
        transcript, point = drawn(commitment.root, params)
        value = value_at(rows.reshape(-1), params, point)
        opening = ligero.open_at(commitment, point, transcript)
        with suppress(ProofRejected):
            check(commitment.root, params, value, opening)
            accepted += 1
    expected = math.comb(params.length - bad, params.queries) / math.comb(params.length, params.queries)
    assert expected <= 2**-params.missed_bits
    assert abs(accepted - trials * expected) < 4 * math.sqrt(trials * expected)


def test_other_lengths_are_refused() -> None:
    for length in (0, SMALL.size + 1):
        with pytest.raises(ValueError, match="numbers"):
            ligero.commit(np.zeros(length, np.uint64), SMALL)
    commitment = ligero.commit(vector(40), SMALL)
    with pytest.raises(ValueError, match="coordinates"):
        ligero.open_at(commitment, field.ext([scalars.ONE]), Transcript("test v1"))
