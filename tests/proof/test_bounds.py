"""A circuit proves something about integers only if every number has a range and no sum can wrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof.bounds import check_bounds
from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read, Source, Table
from shoal.proof.fakes import all_examples, along, dense, embedding, read
from shoal.proof.scalars import P
from shoal.proof.verifier import verify

BYTE = Table("byte", (np.arange(256),))
V, U = Source("v", (6,), "witness"), Source("u", (6,), "witness")


def held(*lookups: Lookup, sources: tuple[Source, ...] = (V,), identities: tuple[Identity, ...] = ()) -> Circuit:
    return Circuit(sources, (BYTE,), lookups, identities)


def bounds_of(circuit: Circuit) -> dict[str, tuple[int, int]]:
    return check_bounds(circuit, {})


@pytest.mark.parametrize("name", all_examples())
def test_ranges_hold_the_numbers(name: str) -> None:
    example = all_examples()[name]
    ranges = check_bounds(example.circuit, {**example.public, **example.weights})
    for source, values in example.values.items():
        assert ranges[source][0] <= values.min() <= values.max() <= ranges[source][1]


def test_a_key_gives_a_range() -> None:
    assert bounds_of(held(Lookup("a", (6,), "byte", (read("v", 0),)))) == {"v": (0, 255)}
    assert bounds_of(held(Lookup("a", (6,), "byte", (read("v", 0, times=-1, constant=5),)))) == {"v": (-250, 5)}
    assert bounds_of(held(Lookup("a", (3, 2), "byte", (Expr((Read("v", (Index(((0, 2), (1, 1))),)),)),))))


def test_high_limbs_by_an_inverse() -> None:
    """v = u + 256 k, k a byte, written as (v - u) / 256."""
    inverse = pow(256, -1, P)
    high = Expr((Read("v", along(0), inverse), Read("u", along(0), -inverse)))
    lookups = (Lookup("high", (6,), "byte", (high,)), Lookup("low", (6,), "byte", (read("u", 0),)))
    assert bounds_of(held(*lookups, sources=(V, U))) == {"u": (0, 255), "v": (0, 65535)}


def test_an_identity_gives_its_output_a_range() -> None:
    square = Identity("square", (6,), (2,), ((read("v", 0), read("v", 0)),), read("u", 0))
    found = bounds_of(held(Lookup("a", (6,), "byte", (read("v", 0),)), sources=(V, U), identities=(square,)))
    assert found["u"] == (0, 2 * 255 * 255)


def test_two_lookups_may_share_a_source() -> None:
    first = Lookup("first", (4,), "byte", (read("v", 0),))
    last = Lookup("last", (2,), "byte", (Expr((Read("v", (Index(((0, 1),), 4),)),)),))
    assert bounds_of(held(first, last)) == {"v": (0, 255)}
    with pytest.raises(InvalidRequest, match="v: expected a lookup or identity that holds all of it"):
        bounds_of(held(first))
    with pytest.raises(InvalidRequest, match="holds all of it"):
        bounds_of(held(first, replace(last, keys=(Expr((Read("v", (Index(((0, 1),), 3),)),)),))))


@pytest.mark.parametrize(
    "key",
    [
        Expr((Read("v", along(0)), Read("u", along(0)))),  # only their sum is held
        Expr((Read("v", along(0), P),)),  # times zero
        Expr((Read("v", along(0), 3),)),  # 1 / 3 is no small number: v may be anything
        Expr((Read("v", (Index(summed=True),)),)),
    ],
)
def test_what_gives_no_range_is_refused(key: Expr) -> None:
    lookups = (Lookup("a", (6,), "byte", (key,)),)
    with pytest.raises(InvalidRequest, match="holds all of it to a range"):
        bounds_of(held(*lookups, sources=(V, U)))


def test_sums_that_could_wrap_are_refused() -> None:
    def square(summed: int, times: int) -> Identity:
        pairs = ((read("v", 0, times=times), read("v", 0, times=times)),)
        return Identity("square", (6,), (summed,), pairs, Expr())

    lookup = Lookup("a", (6,), "byte", (read("v", 0),))
    fits = int((P // 2 / 255**2 / 4) ** 0.5)
    assert bounds_of(held(lookup, identities=(square(4, fits),)))
    with pytest.raises(InvalidRequest, match="half the field"):
        bounds_of(held(lookup, identities=(square(4, fits + 1),)))
    with pytest.raises(InvalidRequest, match="half the field"):
        bounds_of(held(lookup, identities=(square(1 << 48, 1),)))


def test_keys_that_could_wrap_are_refused() -> None:
    lookup = Lookup("a", (6,), "byte", (read("v", 0),))
    wide = Lookup("wide", (6,), "byte", (read("v", 0, times=1 << 58),))
    assert bounds_of(held(lookup, wide))  # times 2^58 modulo p is v again
    two = Expr((Read("v", along(0), 0x123456789ABCDEF), Read("v", along(0), 3)))
    with pytest.raises(InvalidRequest, match="wide: expected sums below"):
        bounds_of(held(lookup, replace(wide, keys=(two,))))


def test_committed_weights_need_declared_bounds() -> None:
    example = dense()
    sources = tuple(replace(source, bounds=None) for source in example.circuit.sources)
    circuit = replace(example.circuit, sources=sources)
    assert check_bounds(circuit, {**example.public, **example.weights})
    with pytest.raises(InvalidRequest, match="w: expected declared bounds"):
        check_bounds(circuit, example.public)


def test_numbers_outside_declared_bounds_are_refused() -> None:
    example = embedding()
    wide = {"w": np.where(example.weights["w"] == example.weights["w"].max(), 10, example.weights["w"])}
    with pytest.raises(InvalidRequest, match="w: expected numbers from -9 to 9"):
        verify(example.circuit, example.public, b"", weights=wide)
