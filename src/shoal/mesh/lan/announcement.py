"""What is said on the LAN: one signed datagram of about 220 bytes.

    "shoal" 0x01  CBOR [asks, tag, peer, wall seconds, udp port, tcp port, signature]

`tag` says which swarm without naming it: a hash of the swarm's secret, the peer and the second, different in each
announcement, which only those with the secret can recognise. The public swarm's secret is empty.

What this does not protect against: an eavesdropper of the LAN learns that a peer of this id runs here; a secret that
can be guessed can be tested against a recorded tag (those of tickets are 32 random bytes); somebody on the LAN can
repeat an announcement from another address for ten minutes: a dial goes astray, no more, for a link proves its peer.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh import parse
from shoal.mesh.peer_id import PeerId

MAGIC = b"shoal\x01"
MAX_DATAGRAM = 512
MAX_SKEW_S = 600
TAG_BYTES = 16
_PURPOSE = "shoal lan announcement v1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where carriers listen, 0 for none: QUIC over UDP, TLS over TCP."""

    udp: int = 0
    tcp: int = 0


@dataclass(frozen=True, slots=True)
class Announcement:
    """`asks`: whoever hears this should announce itself."""

    asks: bool
    tag: bytes
    peer: PeerId
    wall: int
    ports: Ports
    signature: bytes


def swarm_tag(secret: bytes, peer: PeerId, wall: int) -> bytes:
    return blake3_digest("shoal lan tag v1", secret + peer.key + wall.to_bytes(8, "big"))[:TAG_BYTES]


def announced(identity: PrivateKey, secret: bytes, ports: Ports, wall: int, asks: bool) -> bytes:
    """The datagram to send."""
    peer = PeerId(identity.public)
    fields = [asks, swarm_tag(secret, peer, wall), peer.key, wall, ports.udp, ports.tcp]
    return MAGIC + encode([*fields, identity.sign(_PURPOSE, encode(fields))])


def parse_announcement(data: bytes) -> Announcement:
    """PeerFault for what is not one. The signature is `require_valid`'s, after cheaper checks."""
    if len(data) > MAX_DATAGRAM or not data.startswith(MAGIC):
        raise PeerFault("expected an announcement of Shoal's version 1")
    asks, tag, peer, wall, udp, tcp, signature = parse.row(parse.message(data[len(MAGIC) :], MAX_DATAGRAM), 7)
    return Announcement(
        parse.flag(asks), parse.octets(tag, TAG_BYTES, TAG_BYTES), parse.peer_id(peer), parse.integer(wall),
        Ports(parse.integer(udp, 0, 65535), parse.integer(tcp, 0, 65535)),
        parse.octets(signature, SIGNATURE_BYTES, SIGNATURE_BYTES),
    )  # fmt: skip


def is_of_swarm(announcement: Announcement, secret: bytes) -> bool:
    return hmac.compare_digest(announcement.tag, swarm_tag(secret, announcement.peer, announcement.wall))


def require_valid(said: Announcement, wall: float) -> None:
    """PeerFault for one that is too old, too new or not signed by its peer."""
    if abs(said.wall - wall) > MAX_SKEW_S:
        raise PeerFault(f"an announcement of {said.peer.short} is {wall - said.wall:.0f} s old; are both clocks right?")
    fields = [said.asks, said.tag, said.peer.key, said.wall, said.ports.udp, said.ports.tcp]
    if not is_signature(said.peer.key, _PURPOSE, encode(fields), said.signature):
        raise PeerFault(f"an announcement of {said.peer.short} is not signed by it")
