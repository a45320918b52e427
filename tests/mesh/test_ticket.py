"""Tickets: what is written is read, and every mistake is named."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.ticket import _ALPHABET, Ticket, _base32, _checksum, parse_ticket

ADDRESS = Address(PeerId(bytes(range(32))), ("203.0.113.5:4433",), ("[2001:db8::1]:4434",), ("https://r.example",))
TICKET = Ticket((ADDRESS,), "kitchen", b"s" * 32, 2_000)


def test_a_ticket_survives_its_text_and_its_wrapping() -> None:
    text = str(TICKET)
    assert text.startswith("shoal1")
    assert parse_ticket(text, 1_999) == TICKET
    assert parse_ticket(f"  {text[:30]}\n{text[30:].upper()} ", 0) == TICKET
    assert b"s" * 32 not in repr(TICKET).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with shoal1"),
        ("http://shoal1abc", "begins with shoal1"),
        ("shoal2" + str(TICKET)[6:], "version 2.*update"),
        (str(TICKET)[:-9], "cut off"),
        ("shoal1", "cut off"),
        (str(TICKET)[:50] + "1" + str(TICKET)[51:], "character 51.*'1'"),
        (str(TICKET) + "aa", "typing error"),
        ("shoal1" + "a" * 20_000, "at most 16000"),
    ],
)
def test_each_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_ticket(text, 0)


def test_every_wrong_letter_is_found() -> None:
    text = str(TICKET)
    for position in range(6, len(text)):
        other = min(_ALPHABET - {text[position]})
        with pytest.raises(InvalidRequest, match=r"typing error|cut off"):
            parse_ticket(text[:position] + other + text[position + 1 :], 0)


def test_an_expired_ticket_says_so() -> None:
    with pytest.raises(InvalidRequest, match="expired 1 minutes ago"):
        parse_ticket(str(TICKET), 2_060)
    assert parse_ticket(str(Ticket((ADDRESS,))), 1e12).expires is None


@pytest.mark.parametrize(
    "content",
    [5, [], [[], "", None, None], [[[b"short", [], [], []]], "", None, None],
     [[[bytes(32), [1], [], []]], "", None, None],
     [[[bytes(32), ["x" * 300], [], []]], "", None, None], [[[bytes(32), [], [], []]], "a\nb", None, None],
     [[[bytes(32), [], [], []]], "", b"short", None], [[[bytes(32), [], [], []]], "", None, True],
     [[[bytes(32), ["a"] * 17, [], []]], "", None, None], [[[bytes(32), [], [], []]] * 17, "", None, None]],
)  # fmt: skip
def test_a_well_sealed_ticket_of_nonsense_is_refused(content: object) -> None:
    body = encode(content)
    packed = len(body).to_bytes(2, "big") + body
    with pytest.raises(InvalidRequest):
        parse_ticket("shoal1" + _base32(packed + _checksum(packed)), 0)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet=sorted(_ALPHABET)).map("shoal1".__add__),
        st.binary().map(lambda data: "shoal1" + _base32(data)),
    )
)
def test_any_text_is_a_ticket_or_refused(text: str) -> None:
    """Invariant: parse_ticket returns a Ticket or raises InvalidRequest, nothing else."""
    with contextlib.suppress(InvalidRequest):
        assert str(parse_ticket(text, 0)).startswith("shoal1")
