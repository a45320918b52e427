"""Canonical bytes: one value, one encoding; nothing else decodes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.chunk import Receipt
from shoal.core.encoding import MAX_DEPTH, decode, digest, encode
from shoal.core.errors import RemoteError

scalars = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.binary()
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-99, 99), inner))


@given(values)
@settings(derandomize=True, max_examples=300)
def test_what_is_encoded_comes_back_and_encodes_the_same(value: object) -> None:
    data = encode(value)
    assert encode(decode(data)) == data
    assert decode(data) == value


@given(st.dictionaries(st.text(), st.integers(0, 9), min_size=2))
@settings(derandomize=True, max_examples=100)
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert encode(dict(reversed(value.items()))) == encode(value)


@given(st.binary(max_size=64))
@settings(derandomize=True, max_examples=2000)
def test_any_bytes_are_canonical_or_the_other_sides_fault(data: bytes) -> None:
    try:
        value = decode(data)
    except RemoteError:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x18\x01",  # 1 in two bytes
        b"\xa2\x61b\x01\x61a\x02",  # keys out of order
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\x9f\x01\xff",  # indefinite length
        b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00",  # 1.5 in eight bytes
        b"\xf9\x7e\x00",  # NaN
        b"\x01\x01",  # something after the value
        b"\xc0\x60",  # a tag
        b"",
    ],
)
def test_an_encoding_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError, match="canonical CBOR"):
        decode(data)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {1.5: 1}, {b"a": 1}, {True: 1}, {1, 2}, object(), 2**64, -(2**64) - 1]
)
def test_a_value_without_an_encoding_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_nesting_is_bounded_both_ways() -> None:
    value: list[object] = []
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        encode(value)
    with pytest.raises(RemoteError):
        decode(b"\x81" * 100_000 + b"\x01")


def test_minus_zero_is_zero() -> None:
    assert encode(-0.0) == encode(0.0)
    assert encode([1, -0.0]) == encode((1, 0.0))


def test_dataclasses_are_maps_of_their_fields() -> None:
    @dataclass(frozen=True)
    class Pair:
        left: int
        right: tuple[int, ...]

    assert encode(Pair(1, (2, 3))) == encode({"left": 1, "right": [2, 3]})
    assert digest(Receipt(request_id="a")) != digest(Receipt(request_id="b"))
    assert len(digest(Receipt())) == 32


def test_tags_are_refused_unread_however_dear_they_would_be() -> None:
    """Fractions and bigfloats of 400 kB took 15 and 26 s; an expression is compiled, a shared value may hold itself."""
    large = b"\xc2\x5a" + (400_000).to_bytes(4, "big") + bytes(range(1, 251)) * 1600
    bombs = [
        b"\xd8\x1e\x82" + large + large,  # a fraction
        b"\xc5\x82\x3a\x80\x00\x00\x00" + large,  # a bigfloat
        b"\xc4\x82\x03" + large,  # a decimal
        b"\xd8\x23\x7a\x00\x0a\xae\x60" + b"(?:a|b)" * 100_000,  # an expression
        b"\xd8\x1c\x81\xd8\x1d\x00",  # an array in itself
        b"\xda\x00\x0f\x42\x3f\x00",  # a tag nobody knows
    ]
    began = time.process_time()
    for bomb in bombs:
        with pytest.raises(RemoteError, match="not"):
            decode(bomb)
    assert time.process_time() - began < 0.5
