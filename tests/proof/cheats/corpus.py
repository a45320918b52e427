"""False proofs, each with the check that finds it out. A verifier gets of them what it would get from a stranger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from forger import Used, forge
from lies import Lies, lies
from statements import changed, numbers, public_alone, softmax, tensors, told, two_layers, used

from shoal.core.encoding import decode, encode
from shoal.proof.circuit import Circuit, Table
from shoal.proof.fakes import Arrays, Example, convolution, dense
from shoal.proof.plain.scalars import GOLDILOCKS
from shoal.proof.weights import commit_weights

P = GOLDILOCKS.p


@dataclass(frozen=True, slots=True)
class Case:
    """A statement, bytes that do not prove it, and the check which says so."""

    name: str
    circuit: Circuit
    public: Arrays
    weights: Arrays | None
    root: bytes | None
    proof: bytes
    check: str


LAST = ("share", "value", "row", "columns")
FOUND_LAST = ("claims", "opening", "opening.value", "opening.code", "opening.paths")


def chain(first: tuple[str, ...], found: tuple[str, ...]) -> Iterator[tuple[Lies, str]]:
    """Lies that go one step further each, and the check that each of them meets."""
    steps = (*first, *LAST)
    for done, check in enumerate((*found, *FOUND_LAST)):
        yield lies(*steps[:done], plants=bool(done % 2)), check


@cache
def corpus() -> tuple[Case, ...]:
    groups = (lookup_lies, identity_lies, output_lies, committed_lies, other_numbers, other_tables, other_bytes)
    return tuple(case for group in groups for case in group())


def case(name: str, example: Example, mine: Used, check: str, root: bytes | None = None) -> Case:
    """What the forger makes of its own numbers for the statement of `example`."""
    weights = None if root is not None else example.weights
    proof = forge(told(example, root), mine)
    return Case(name, example.circuit, example.public, weights, root, proof, check)


def out_of_range() -> Example:
    """A remainder of 16 and more, where the quotient is negative: every other constraint still holds."""
    example = dense()
    index = tuple(int(i) for i in np.argwhere(example.witness["q"] < 0)[0])
    return changed(changed(example, "q", index, -1), "r", index, 16)


def wrong_quotient() -> Example:
    """A quotient and the output made of it, one too great."""
    example = dense()
    index = tuple(int(i) for i in np.argwhere(example.witness["q"] > 0)[0])
    return changed(changed(example, "q", index, 1), "y", index, 1)


def lookup_lies() -> Iterator[Case]:
    example = out_of_range()
    for how, check in chain(("root", "layers"), ("lookup sum", "lookup layer")):
        yield case(f"out of range: {sorted(how.at)}", example, used(example, how=how), check)
    wrong = changed(dense(), "y", (0, 0), 1)
    yield case("wrong output, honest messages", wrong, used(wrong), "lookup sum")
    yield case("denominators of zero", wrong, used(wrong, how=lies("zero root")), "lookup denominators")
    mine = used(example)
    bad = int(example.witness["r"].max())
    filled = replace(mine, padding=(((P - 1, 0), (0, bad)),))
    yield case("a fraction in the padding", example, filled, "claims")


def identity_lies() -> Iterator[Case]:
    example = wrong_quotient()
    for how, check in chain(("factors",), ("identity factors",)):
        yield case(f"wrong quotient: {sorted(how.at)}", example, used(example, how=how), check)


def output_lies() -> Iterator[Case]:
    example = wrong_quotient()
    for how, check in chain((), ()):
        bent = Lies(how.at | {"output"}, how.plants)
        yield case(f"wrong outputs summed: {sorted(how.at)}", example, used(example, how=bent), check)


def committed_lies() -> Iterator[Case]:
    """The verifier has the weights' root alone."""
    example = dense()
    root = commit_weights(example.circuit, example.weights).root
    flipped = changed(example, "w", (0, 0), 1 if example.weights["w"][0, 0] < 7 else -1)
    other = commit_weights(flipped.circuit, flipped.weights).root
    run = flipped_run(flipped)
    yield case("another model behind the root", run, used(run), "opening.paths", root)
    honest = case("", run, used(run), "", other)
    yield replace(honest, name="a proof for another model's root", root=root, check="lookup layer")
    wrong = wrong_quotient()
    for how, check in chain(("factors",), ("identity factors",)):
        yield case(f"committed weights: {sorted(how.at)}", wrong, used(wrong, how=how), check, root)


def flipped_run(example: Example) -> Example:
    """`dense` run with the weights it has: quotients, remainders and outputs follow."""
    total = example.public["x"] @ example.weights["w"].astype(np.int64)
    quotient, rest = total >> 4, total & 15
    public = {**example.public, "y": np.maximum(quotient, 0)}
    return replace(example, public=public, witness={"q": quotient, "r": rest})


def other_numbers() -> Iterator[Case]:
    """Everything honest, for other numbers than the verifier is told."""
    true = dense()
    weight = changed(true, "w", (2, 3), 1 if true.weights["w"][2, 3] % 2 == 0 else -1)
    run = flipped_run(weight)
    lied = replace(run, weights=true.weights)
    for how, check in chain((), ()):
        yield case(f"a weight's lowest bit: {sorted(how.at)}", lied, used(run, how=how), check)
    layers = two_layers()
    first, second = layers.weights["first"], layers.weights["second"]
    h = layers.public["x"] @ second
    swapped = Example(layers.circuit, {"first": second, "second": first}, {**layers.public, "y": h @ first}, {"h": h})
    yield case("layers swapped", replace(swapped, weights=layers.weights), used(swapped), "claims")
    requests = replace(true, public={**true.public, "x": true.public["x"][::-1].copy()})
    yield case("requests swapped", requests, used(true), "claims")
    stale = used(true, old_root=commit_of(dense(seed=1)))
    yield case("a stale commitment", true, stale, "opening.paths")
    yield case("a softmax that is not normalised", softmax(2), used(softmax(2)), "lookup sum")
    yield case("padding of a convolution", *padded_with_ones(), "claims")
    proof = forge(told(true), used(true))
    other = replace(true.circuit, identities=(replace(true.circuit.identities[0], label="other"),))
    yield Case("another circuit's proof", other, true.public, true.weights, None, proof, "lookup layer")


def commit_of(example: Example) -> bytes:
    """The witness' root in an honest proof."""
    return bytes(decode(forge(told(example), used(example)))["root"])


def padded_with_ones() -> tuple[Example, Used]:
    """A convolution that reads ones around its image, where the circuit says zeros."""
    example = convolution()
    x = np.pad(example.public["x"], ((0, 0), (1, 1), (1, 1)), constant_values=1)
    w = example.weights["w"].astype(np.int64)
    y = np.zeros(example.witness["y"].shape, np.int64)
    for i, j in np.ndindex(y.shape[1:]):
        y[:, i, j] = np.tensordot(w, x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], 3)
    blocks = y.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 2, 2, 4)
    hit = np.zeros_like(blocks)
    np.put_along_axis(hit, blocks.argmax(3)[..., None], 1, 3)
    public = {"x": example.public["x"], "best": blocks.max(axis=3)}
    lied = Example(example.circuit, example.weights, public, {"y": y, "hit": hit.reshape(3, 2, 2, 2, 2)})
    mine = used(replace(lied, public={**public, "x": x}), circuit=around(example.circuit, x.shape))
    return lied, mine


def around(circuit: Circuit, shape: tuple[int, ...]) -> Circuit:
    """The convolution's circuit with an image that is read without an offset."""
    first = circuit.identities[0]
    (image, weights), *_ = first.pairs
    one = image.reads[0]
    reads = replace(one, indices=tuple(replace(index, offset=0) for index in one.indices))
    sources = tuple(replace(source, shape=shape) if source.name == "x" else source for source in circuit.sources)
    pair = (replace(image, reads=(reads,)), weights)
    return replace(circuit, sources=sources, identities=(replace(first, pairs=(pair,)), *circuit.identities[1:]))


def other_tables() -> Iterator[Case]:
    """Tables the verifier does not have, and rows counted wrongly."""
    example = dense()
    relu = example.circuit.tables[1]
    leaky = Table("relu", (relu.columns[0], np.maximum(relu.columns[0], relu.columns[0] // 2)))
    tables = replace(example.circuit, tables=(example.circuit.tables[0], leaky))
    run = replace(example, public={**example.public, "y": np.maximum(example.witness["q"], example.witness["q"] // 2)})
    yield case("another table", run, used(run, circuit=tables), "claims")
    mine = used(example)
    name = "multiplicity of rest"
    counts = mine.witness[name].flat
    moved = tensors({name: np.array([counts[0] + 1, counts[1] - 1, *counts[2:]])})
    yield case("a row counted for another", example, replace(mine, witness={**mine.witness, **moved}), "lookup sum")
    yield case("a row of another table", *row_of_another_table(), "lookup sum")


def row_of_another_table() -> tuple[Example, Used]:
    """A negative remainder, counted as a row (remainder, 0) of the table of two columns."""
    true = dense()
    index = tuple(int(i) for i in np.argwhere(true.witness["q"] < -1)[0])
    example = changed(changed(true, "q", index, 1), "r", index, -16)
    mine, relu = used(example), true.circuit.tables[1]
    counts = np.array(mine.witness["multiplicity of relu"].flat)
    counts[relu.columns[0].tolist().index(int(example.witness["r"][index]))] += 1
    return example, replace(mine, witness={**mine.witness, **tensors({"multiplicity of relu": counts})})


def other_bytes() -> Iterator[Case]:
    """True statements, in bytes no honest prover writes."""
    example = dense()
    proof = forge(told(example), used(example))
    for name, change, check in BYTES:
        value = decode(proof)
        change(value)
        yield Case(name, example.circuit, example.public, example.weights, None, encode(value), check)
    for name, data in (("truncated", proof[:-1]), ("extended", proof + b"\0"), ("nothing", b""), ("longer", proof * 9)):
        yield Case(name, example.circuit, example.public, example.weights, None, data, "format")
    small = numbers()
    yield case("v + p for v", small, used(small, how=lies("modulus")), "format")
    alone = public_alone()
    yield case("a root of nothing", alone, used(alone, old_root=b"root"), "format")


def _column_twice(value: Any) -> None:
    opened, rows = value["opened"][0], dense_rows()
    opened[3] = opened[3][: 8 * rows] * 2 + opened[3][16 * rows :]


def dense_rows() -> int:
    from shoal.proof.plan import make_plan

    return make_plan(dense().circuit, False).stores[0].params.rows


Change = Callable[[Any], object]
BYTES: tuple[tuple[str, Change, str], ...] = (
    ("one query's column for two", _column_twice, "opening.paths"),
    ("a digest more", lambda v: v["opened"][0].__setitem__(4, v["opened"][0][4] + bytes(32)), "opening.paths"),
    ("a digest less", lambda v: v["opened"][0].__setitem__(4, v["opened"][0][4][:-32]), "opening.paths"),
    ("a part of a digest", lambda v: v["opened"][0].__setitem__(4, v["opened"][0][4] + b"\0"), "format"),
    ("version 2", lambda v: v.update(version=2), "format"),
    ("a field more", lambda v: v.update(more=1), "format"),
    ("a part more", lambda v: v["fractions"].append(b""), "format"),
    ("a word more", lambda v: v["identities"].__setitem__(1, v["identities"][1] + bytes(8)), "format"),
)
