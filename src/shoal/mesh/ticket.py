"""A ticket: the line of text that lets a machine join. `shoal join TICKET`.

    shoal1 + base32( length, 2 bytes | canonical CBOR | checksum, 4 bytes )

lower case, no padding, safe in a URL, a chat and a terminal. The number in "shoal1" is the format's version.

What this does not protect against: a ticket with a secret lets in everybody who reads it. The checksum finds typing
errors, not forgers; who answers at an address is proven by the connection.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.core.encoding import decode, encode
from shoal.core.errors import InvalidRequest, RemoteError
from shoal.crypto.hashes import blake3_digest
from shoal.mesh.address import MAX_HINTS, Address
from shoal.mesh.peer_id import ID_BYTES, PeerId

PREFIX = "shoal"
VERSION = 1
PURPOSE = "shoal ticket v1"
CHECKSUM_BYTES = 4
LENGTH_BYTES = 2
MAX_TEXT = 16_000
MAX_BOOTSTRAP = 16
MAX_NAME = 64
MIN_SECRET, MAX_SECRET = 16, 64
MAX_HINT_TEXT = 256
_HEAD = re.compile(PREFIX + r"([0-9])(.*)")
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where to join and with what.

    bootstrap  1 to 16 peers to connect to first.
    swarm      the name of the swarm; "" for the open one.
    secret     what members of a private swarm prove to know, 16 to 64 bytes; None for an open swarm.
    expires    seconds since 1970 after which the ticket is refused; None for never.
    """

    bootstrap: tuple[Address, ...]
    swarm: str = ""
    secret: bytes | None = field(default=None, repr=False)
    expires: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.bootstrap) <= MAX_BOOTSTRAP:
            raise _wrong(f"expected 1 to {MAX_BOOTSTRAP} bootstrap peers, found {len(self.bootstrap)}")
        if len(self.swarm) > MAX_NAME or not self.swarm.isprintable():
            raise _wrong(f"expected a swarm name of at most {MAX_NAME} printable characters, found {self.swarm[:80]!r}")
        if self.secret is not None and not MIN_SECRET <= len(self.secret) <= MAX_SECRET:
            raise _wrong(f"expected a secret of {MIN_SECRET} to {MAX_SECRET} bytes, found {len(self.secret)}")

    def __str__(self) -> str:
        rows = [[item.peer.key, item.udp, item.tcp, item.relays] for item in self.bootstrap]
        body = encode([rows, self.swarm, self.secret, self.expires])
        packed = len(body).to_bytes(LENGTH_BYTES, "big") + body
        return f"{PREFIX}{VERSION}{_base32(packed + _checksum(packed))}"


def parse_ticket(text: str, now: float) -> Ticket:
    """The ticket behind its text; spaces, line breaks and capitals do not matter. `now`: seconds since 1970.

    InvalidRequest says whether it is no ticket, of a newer version, cut off, mistyped or expired.
    """
    body = _body("".join(text[: 2 * MAX_TEXT].lower().split()))
    try:
        ticket = _ticket(decode(body))
    except InvalidRequest:
        raise
    except RemoteError as error:
        raise _wrong(f"the ticket's content means nothing: {error}") from error
    if ticket.expires is not None and now >= ticket.expires:
        ago = (now - ticket.expires) / 60
        raise _wrong(f"this ticket expired {ago:,.0f} minutes ago (by this machine's clock); ask for a new one")
    return ticket


def _body(text: str) -> bytes:
    """The checked CBOR inside the text."""
    match = _HEAD.fullmatch(text)
    if match is None:
        raise _wrong(f"expected a ticket, which begins with {PREFIX}{VERSION}, found {text[:40]!r}")
    if int(match[1]) != VERSION:
        raise _wrong(f"this ticket is of version {match[1]}, this Shoal reads version {VERSION}; update Shoal")
    letters = match[2]
    if len(letters) > MAX_TEXT:
        raise _wrong(f"expected a ticket of at most {MAX_TEXT} characters, found {len(letters)}")
    for position, letter in enumerate(letters):
        if letter not in _ALPHABET:
            raise _wrong(f"character {position + len(PREFIX) + 2} of the ticket, {letter!r}, is not one of a-z 2-7")
    return _checked(letters)


def _checked(letters: str) -> bytes:
    whole = letters[: len(letters) // 8 * 8 + {0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: 5, 6: 5, 7: 7}[len(letters) % 8]]
    data = base64.b32decode(whole.upper() + "=" * (-len(whole) % 8))
    size = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big") + CHECKSUM_BYTES
    if len(data) < LENGTH_BYTES or len(data) < size:
        raise _wrong(f"this ticket is cut off: {len(letters)} characters of {_length(size)}; copy the whole line")
    packed, checksum = data[: size - CHECKSUM_BYTES], data[size - CHECKSUM_BYTES :]
    if checksum != _checksum(packed) or _base32(data) != letters:
        raise _wrong("this ticket has a typing error (its checksum is wrong); copy it again")
    return packed[LENGTH_BYTES:]


def _ticket(value: Any) -> Ticket:
    match value:
        case [list(rows), str(swarm), bytes() | None as secret, int() | None as expires] if not isinstance(
            expires, bool
        ):
            return Ticket(tuple(_address(row) for row in rows[: MAX_BOOTSTRAP + 1]), swarm, secret, expires)
    raise _wrong("the ticket's content is not a ticket")


def _address(row: Any) -> Address:
    match row:
        case [bytes(key), list(udp), list(tcp), list(relays)] if len(key) == ID_BYTES:
            return Address(PeerId(key), _hints(udp), _hints(tcp), _hints(relays))
    raise _wrong("a bootstrap peer in the ticket has no id and lists of addresses")


def _hints(values: Sequence[Any]) -> tuple[str, ...]:
    if len(values) > MAX_HINTS or not all(isinstance(item, str) and len(item) <= MAX_HINT_TEXT for item in values):
        raise _wrong(f"expected at most {MAX_HINTS} addresses of at most {MAX_HINT_TEXT} characters for one peer")
    return tuple(values)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _checksum(data: bytes) -> bytes:
    return blake3_digest(PURPOSE, data)[:CHECKSUM_BYTES]


def _length(size: int) -> int:
    return (size * 8 + 4) // 5


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, "ticket")
