"""Who is in the table: a peer, where it may be reached, and the work that its place in the DHT cost.

A place is hash(peer id). To hold one, a peer shows a number that makes a second hash begin with zero bits.

What this does not protect against: somebody who pays. The work makes a thousand identities a thousand times dearer than
one, no more (16 bits: 0.03 s each on one core), and it is paid once, not for each year. It does not bind the place
either: an attacker tries keys (30 µs each) until one hashes near a victim's key and pays the work for that one alone.
What stands against that is elsewhere: signatures (a liar hides a record, never alters it), disjoint paths, `k` copies.
"""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass, field
from typing import Any

from shoal.crypto.hashes import blake3_digest, hasher
from shoal.mesh import parse
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId

BITS = 256
HINTS = 4
"""Endpoints of each kind that a contact carries: twenty contacts must fit one small reply."""

RELAYED = "relayed"
_PLACE = "shoal dht place v1"
_WORK = "shoal dht work v1"


def place(peer: PeerId) -> int:
    """Where a peer stands in the space of keys, 0 to 2^256."""
    return int.from_bytes(blake3_digest(_PLACE, peer.key), "big")


@dataclass(frozen=True, slots=True)
class Contact:
    address: Address
    work: int = 0
    place: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", place(self.address.peer))

    @property
    def peer(self) -> PeerId:
        return self.address.peer

    def row(self) -> list[Any]:
        """As it is encoded; `parse_contact` reads it."""
        return [self.peer.key, parse.address_fields(self.address, HINTS), self.work]


def parse_contact(value: Any) -> Contact:
    """PeerFault unless well-formed. Whether the work suffices is for whoever has a difficulty."""
    peer, address, work = parse.row(value, 3)
    peer = parse.peer_id(peer)
    return Contact(parse.address(address, peer, HINTS), parse.integer(work))


def has_worked(contact: Contact, difficulty: int) -> bool:
    """Whether the contact's number makes `difficulty` leading zero bits."""
    digest = blake3_digest(_WORK, contact.peer.key + contact.work.to_bytes(8, "big"))
    return int.from_bytes(digest, "big") >> (BITS - difficulty) == 0


def worked(address: Address, difficulty: int) -> Contact:
    """A contact whose work suffices: about 2^difficulty hashes of 0.4 µs."""
    started = hasher(_WORK)
    started.update(address.peer.key)
    for number in itertools.count():
        attempt = started.copy()
        attempt.update(number.to_bytes(8, "big"))
        if int.from_bytes(attempt.digest(), "big") >> (BITS - difficulty) == 0:
            return Contact(address, number)
    raise AssertionError("numbers do not end")


def subnets(address: Address) -> frozenset[str]:
    """The public networks an address claims (IPv4 /24, IPv6 /48); RELAYED when it claims relays only.

    Private and loopback addresses count for nothing: on one LAN everybody is of one network.
    """
    found = {_subnet(hint) for hint in address.udp + address.tcp} - {""}
    if not found and address.relays and not (address.udp or address.tcp):
        return frozenset((RELAYED,))
    return frozenset(found)


def _subnet(hint: str) -> str:
    host = hint.rpartition(":")[0].strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if not ip.is_global:
        return ""
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))
