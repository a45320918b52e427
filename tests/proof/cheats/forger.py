"""A whole proof by a prover that may lie, for one statement while it computes with other numbers, or another circuit.

Written with the second verifier's arithmetic; where it does not lie it writes the very bytes of `prover.prove`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any

import numpy as np
from forged_sums import forge_identities, forge_opening
from forged_tables import Table
from forged_tree import forge_tree
from lies import HONEST, Lies

from shoal.core.encoding import encode
from shoal.proof import ligero, ntt
from shoal.proof.circuit import Circuit
from shoal.proof.plain import statement
from shoal.proof.plain.coins import Coins, HashCoins
from shoal.proof.plain.forms import Form, Numbers, combined
from shoal.proof.plain.identities import SumMessages, identity_claims
from shoal.proof.plain.lookups import Claims, TreeMessages, counts_name, leaf_forms, leaf_shapes
from shoal.proof.plain.opening import CodeMessages, Shape, VectorMessages, codeword_at
from shoal.proof.plain.places import Tensor, indices, places
from shoal.proof.plain.scalars import GOLDILOCKS, Element, Field
from shoal.proof.plain.verify import committed_shapes, line_of, shapes_of, source_shapes
from shoal.proof.plan import make_plan

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Told:
    """What the verifier is told: circuit, public numbers, weights, or the root of their commitment."""

    circuit: Circuit
    public: Tensors
    weights: Tensors
    root: bytes | None = None

    @property
    def known(self) -> dict[str, Tensor]:
        constants = {name: Tensor.of(array) for name, array in self.circuit.constants.items()}
        return {**self.public, **constants, **({} if self.root is not None else self.weights)}


@dataclass(frozen=True, slots=True)
class Used:
    """What the prover computes with. circuit: None for the one told. witness: with the counts of tables' rows.

    padding: fractions at the leaves that have to be 0 / 1, and numbers behind the committed vector.
    """

    values: Tensors
    witness: Tensors
    circuit: Circuit | None = None
    padding: tuple[tuple[Element, tuple[int, ...]], ...] = ()
    tail: tuple[int, ...] = ()
    old_root: bytes | None = None
    how: Lies = default(default=HONEST)


@dataclass(frozen=True, slots=True)
class Messages:
    """What is sent before any commitment is opened, and the form that is left of it with the value claimed."""

    tree: TreeMessages | None
    sums: SumMessages
    form: Form
    value: Element


def forge_claims(field: Field, told: Told, used: Used, coins: Coins) -> Messages:
    """Lookups and identities."""
    circuit, shapes = used.circuit or told.circuit, source_shapes(told.circuit)
    mine = Numbers(field, source_shapes(circuit), {**used.values, **used.witness})
    theirs = Numbers(field, shapes, told.known)
    claims, tree = Claims(), None
    if told.circuit.lookups:
        alpha = coins.draw("lookup alpha")[0]
        betas = coins.draw("lookup betas", max(len(table.columns) for table in told.circuit.tables))
        p, q = leaves(circuit, mine, alpha, betas, used)
        forged = forge_tree(field, p, q, coins, used.how)
        tree = forged.sent
        forms = leaf_forms(told.circuit, theirs, alpha, betas, forged.point)
        claims += zip(forms, (forged.p, forged.q), strict=True)
    sent, drawn = forge_identities(circuit, mine, coins, used.how)
    claims += identity_claims(told.circuit, theirs, sent, drawn)
    form, value = combined(field, claims, coins.draw("claims")[0])
    return Messages(tree, sent, form, value)


def leaves(circuit: Circuit, mine: Numbers, alpha: Element, betas: list[Element], used: Used) -> tuple[Table, Table]:
    """Numerators and denominators, filled up with 0 / 1 or with the padding wished for."""
    field, (where, count) = mine.field, places(leaf_shapes(circuit))
    size = 1 << max(count - 1, 0).bit_length()
    p, q = [(0, 0)] * size, [(1, 0)] * size
    order = [table.name for table in circuit.tables]
    for lookup, at in zip(circuit.lookups, where, strict=False):
        for index in indices(lookup.space):
            keys = [_value(mine, key, index) for key in lookup.keys]
            p[at[index]], q[at[index]] = (1, 0), denominator(field, alpha, betas, order.index(lookup.table), keys)
    for number, table in enumerate(circuit.tables):
        columns, at = [Tensor.of(column).flat for column in table.columns], where[len(circuit.lookups) + number]
        for row, count_ in enumerate(mine.known[counts_name(table.name)].flat):
            keys = [field.number(column[row]) for column in columns]
            p[at[(row,)]], q[at[(row,)]] = field.number(-count_), denominator(field, alpha, betas, number, keys)
    for i, (top, keys_) in enumerate(used.padding):
        p[count + i] = top
        q[count + i] = denominator(field, alpha, betas, keys_[0], [field.number(key) for key in keys_[1:]])
    return p, q


def denominator(field: Field, alpha: Element, betas: list[Element], tag: int, keys: list[Element]) -> Element:
    mixed = field.add((0, 0), *(field.times(beta, key) for beta, key in zip(betas, keys, strict=False)))
    return field.minus(field.minus(alpha, field.number(tag)), mixed)


def packed(field: Field, store: Mapping[str, tuple[int, ...]], values: Tensors, size: int) -> Table:
    """The committed vector as elements, filled with zeros."""
    vector, (where, _) = [(0, 0)] * size, places(list(store.values()))
    for name, positions in zip(store, where, strict=True):
        for value, index in zip(values[name].flat, indices(store[name]), strict=True):
            vector[positions[index]] = field.number(value)
    return vector


def forge(told: Told, used: Used) -> bytes:
    """The proof's bytes."""
    field, committed = GOLDILOCKS, _commit(told, used)
    listed = [[part.shape.rows, part.shape.columns, part.shape.rate, part.shape.queries] for part in committed]
    coins = statement.begin(told.circuit, listed, told.root or statement.tensors_digest(told.weights), told.public)
    root = used.old_root or (committed[0].commitment.root if committed else b"")
    if root:
        coins.hear_bytes("witness", root)
    sent = forge_claims(field, told, used, coins)
    lines = [line_of(sent.form, part.store, part.shape) for part in committed]
    shares = _shares(field, lines, [part.vector for part in committed], sent.value, used.how)
    for share in shares:
        coins.hear("opening share", [share])
    opened = list[list[bytes]]()
    for line, part, share in zip(lines, committed, shares, strict=True):
        full = part.vector + [(0, 0)] * ((1 << part.shape.bits) - len(part.vector))
        messages, point = forge_opening(field, line, full, share, coins, used.how)
        opened.append(_opened(messages, forge_code(part, point, messages.value, coins, used.how)))
    return encode({"version": 1, "root": root, **_parts(sent), "opened": opened})


@dataclass(frozen=True, slots=True)
class Committed:
    """One commitment and what is in it."""

    store: Mapping[str, tuple[int, ...]]
    shape: Shape
    vector: Table
    commitment: ligero.Commitment


def _commit(told: Told, used: Used) -> list[Committed]:
    commits = told.root is not None
    stores = [committed_shapes(told.circuit, "witness"), committed_shapes(told.circuit, "weight") if commits else {}]
    params = [store.params for store in make_plan(told.circuit, commits).stores]
    found = list[Committed]()
    shapes = shapes_of(told.circuit, commits)
    for store, shape, own in zip(filter(None, stores), shapes, params, strict=True):
        vector = packed(GOLDILOCKS, store, {**used.values, **used.witness}, shape.rows << shape.columns)
        if used.tail and not found:
            vector[len(vector) - len(used.tail) :] = [GOLDILOCKS.number(value) for value in used.tail]
        words = np.array([a for a, _ in vector], np.uint64)
        found.append(Committed(store, shape, vector, ligero.commit(words, own)))
    return found


def forge_code(part: Committed, point: list[Element], value: Element, coins: HashCoins, how: Lies) -> CodeMessages:
    field, shape, rows = GOLDILOCKS, part.shape, part.commitment.rows.tolist()
    weights = [field.eq(point[: shape.row_bits], i) for i in range(shape.rows)]
    row = [_mixed(weights, [rows[i][j] for i in range(shape.rows)]) for j in range(1 << shape.columns)]
    if "row" in how.at:
        eqs = [field.eq(point[shape.row_bits :], j) for j in range(len(row))]
        gap = field.minus(value, field.add(*map(field.times, row, eqs)))
        row[0] = field.add(row[0], field.over(gap, eqs[0]))
    coins.hear("opening row", row)
    queries = coins.places("opening queries", shape.queries, 1 << (shape.columns + shape.rate))
    code = ntt.encode(part.commitment.rows, 1 << shape.rate)
    columns = code[:, queries].T.tolist()
    if "columns" in how.at:
        wanted = [codeword_at(shape, row, query) for query in queries]
        columns = [_bent_column(column, value, weights) for column, value in zip(columns, wanted, strict=True)]
    return CodeMessages(row, columns, list(part.commitment.tree.prove(queries)))


def _parts(sent: Messages) -> dict[str, list[bytes]]:
    tree, sums = sent.tree, sent.sums
    sides = [] if tree is None else [e for four in tree.sides for e in four]
    rounds = [] if tree is None else [e for level in tree.rounds for pair in level for e in pair]
    return {
        "fractions": [] if tree is None else [blob(sides), blob(rounds)],
        "identities": [
            blob([sums.output]),
            blob(e for message in sums.rounds for e in message),
            blob(e for pair in sums.factors for e in pair),
        ],
    }


def blob(elements: Any) -> bytes:
    return b"".join(word.to_bytes(8, "little") for element in elements for word in element)


def _mixed(weights: list[Element], column: list[int]) -> Element:
    return GOLDILOCKS.add(*(GOLDILOCKS.times(w, (v, 0)) for w, v in zip(weights, column, strict=True)))


def _bent_column(column: list[int], wanted: Element, weights: list[Element]) -> list[int]:
    """Two entries of a column such that it combines to what is wanted: two equations in the base field."""
    p = GOLDILOCKS.p
    x, y = GOLDILOCKS.minus(wanted, _mixed(weights, column))
    (a, b), (c, d) = weights[0], weights[1]
    over = pow(a * d - b * c, -1, p)
    return [(column[0] + (x * d - y * c) * over) % p, (column[1] + (a * y - b * x) * over) % p, *column[2:]]


def _shares(
    field: Field, lines: list[dict[int, Element]], vectors: list[Table], value: Element, how: Lies
) -> list[Element]:
    """True ones; bent: the first one is what the others leave."""
    found = list[Element]()
    for line, vector in zip(lines, vectors, strict=True):
        found.append(field.add((0, 0), *(field.times(c, vector[at]) for at, c in line.items())))
    if "share" in how.at:
        found[0] = field.minus(value, field.add((0, 0), *found[1:]))
    return found


def _opened(vector: VectorMessages, code: CodeMessages) -> list[bytes]:
    columns = b"".join(word.to_bytes(8, "little") for column in code.columns for word in column)
    return [
        blob([vector.share, vector.value]),
        blob(e for message in vector.rounds for e in message),
        blob(code.row),
        columns,
        b"".join(code.digests),
    ]


def _value(numbers: Numbers, key: Any, index: tuple[int, ...]) -> Element:
    form = Form()
    numbers.add(form, key, dict(enumerate(index)), (1, 0))
    return form.known
