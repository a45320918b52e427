"""Bytes of a peer become checked values here, or `PeerFault` says what was expected: never another exception.

A part's one parsing function is a few calls of these, so that none forgets a bound.
"""

from __future__ import annotations

from typing import Any

from shoal.core.encoding import decode
from shoal.core.errors import PeerFault, RemoteError
from shoal.core.text import is_plain
from shoal.mesh.address import MAX_HINTS, Address
from shoal.mesh.peer_id import ID_BYTES, PeerId

BYTES, TEXT = 2, 3
LONG = 24
"""RFC 8949, section 3: major types whose size is a number of bytes; sizes from here on are written behind the head."""
MAX_HINT_LENGTH = 256
"""Characters of one endpoint or relay URL."""


def message(data: bytes | bytearray | memoryview, max_bytes: int, max_items: int | None = None) -> Any:
    """The value behind a message of at most `max_bytes` canonical bytes.

    max_items  for large messages made of few values: a million tiny ones take a quarter of a second to decode.
    """
    if len(data) > max_bytes:
        raise PeerFault(f"expected at most {max_bytes} bytes, found {len(data)}")
    if max_items is not None:
        count(data, max_items)
    try:
        return decode(bytes(data))
    except RemoteError as error:
        raise PeerFault(str(error)) from error


def count(data: bytes | bytearray | memoryview, at_most: int) -> int:
    """How many values CBOR bytes hold, keys and the arrays themselves included, without making any of them.

    PeerFault beyond `at_most`: the time follows from that, not from the bytes. What is no CBOR is counted as far as it
    goes; `decode` says what is wrong with it.
    """
    position, found, end = 0, 0, len(data)
    while position < end:
        found += 1
        if found > at_most:
            raise PeerFault(f"expected at most {at_most} values in a message, found more")
        kind, size = data[position] >> 5, data[position] & 31
        position += 1
        if size >= LONG:
            width = 1 << (size - LONG) if size < LONG + 4 else 0
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        if kind in (BYTES, TEXT):
            position += size
    return found


def row(value: Any, length: int) -> list[Any]:
    """An array of exactly `length` items."""
    if type(value) is not list or len(value) != length:
        raise PeerFault(f"expected an array of {length}, found {_shown(value)}")
    return value


def many(value: Any, at_most: int) -> list[Any]:
    """An array of up to `at_most` items."""
    if type(value) is not list or len(value) > at_most:
        raise PeerFault(f"expected an array of at most {at_most}, found {_shown(value)}")
    return value


def octets(value: Any, at_most: int, exactly: int | None = None) -> bytes:
    if type(value) is not bytes or len(value) > at_most or (exactly is not None and len(value) != exactly):
        raise PeerFault(f"expected {'' if exactly else 'at most '}{exactly or at_most} bytes, found {_shown(value)}")
    return value


def integer(value: Any, low: int = 0, high: int = 2**63 - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise PeerFault(f"expected an integer from {low} to {high}, found {_shown(value)}")
    return value


def number(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise PeerFault(f"expected a number from {low} to {high}, found {_shown(value)}")
    return float(value)


def text(value: Any, at_most: int) -> str:
    if type(value) is not str or len(value) > at_most:
        raise PeerFault(f"expected a text of at most {at_most} characters, found {_shown(value)}")
    if not is_plain(value):
        raise PeerFault("expected a text without control characters")
    return value


def flag(value: Any) -> bool:
    if type(value) is not bool:
        raise PeerFault(f"expected true or false, found {_shown(value)}")
    return value


def peer_id(value: Any) -> PeerId:
    return PeerId(octets(value, ID_BYTES, ID_BYTES))


def address(value: Any, peer: PeerId, at_most: int = MAX_HINTS) -> Address:
    """The hints `address_fields` wrote. What a hint means is the carrier's own to check."""
    kinds = [tuple(text(hint, MAX_HINT_LENGTH) for hint in many(kind, at_most)) for kind in row(value, 3)]
    return Address(peer, kinds[0], kinds[1], kinds[2])


def address_fields(where: Address, at_most: int = MAX_HINTS) -> list[list[str]]:
    """`Address` without its peer, as it is encoded: the first `at_most` hints of each kind."""
    return [list(kind[:at_most]) for kind in (where.udp, where.tcp, where.relays)]


def _shown(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (list, dict, str, bytes)) else ""
    return f"{type(value).__name__}{size}"
