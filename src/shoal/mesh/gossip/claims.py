"""What members say, each claim signed by whoever makes it and passed on unchanged.

Statement   a peer about itself: alive or leaving, where, under what load. Newest wins: (incarnation, left, sequence).
Accusation  a watcher about a peer: it did not answer, neither me nor others for me. Ends nothing by itself: the
            accused refutes with a higher incarnation, or is dead when the suspicion times out (`suspicion`).

What this does not protect against: a peer that lies about its own load, or that answers gossip and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.keys import SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh import parse
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId

HINTS = 2
"""Endpoints of each kind in a statement; the DHT knows the rest."""

DIGEST_BYTES = 32
_STATEMENT = "shoal gossip statement v1"
_ACCUSATION = "shoal gossip accusation v1"


@dataclass(frozen=True, slots=True)
class Load:
    """queue     requests waiting; running: being answered now.
    tokens_per_s  measured over the last seconds, all requests together.
    models    hash of what is served, so that a change is seen; the list itself is asked for.
    price     microcents for a thousand tokens, 0 for free.
    """

    queue: int = 0
    running: int = 0
    tokens_per_s: float = 0.0
    models: bytes = b""
    price: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """`left`: it says goodbye. `address` is its own, in few hints."""

    address: Address
    incarnation: int
    sequence: int = 0
    left: bool = False
    load: Load = field(default_factory=Load)
    signature: bytes = b""

    @property
    def peer(self) -> PeerId:
        return self.address.peer

    @property
    def version(self) -> tuple[int, bool, int]:
        """What is newer: a goodbye ends its incarnation."""
        return (self.incarnation, self.left, self.sequence)


@dataclass(frozen=True, slots=True)
class Accusation:
    """`accuser` had no answer from `peer` in its `incarnation`."""

    peer: PeerId
    incarnation: int
    accuser: PeerId
    signature: bytes = b""


Claim = Statement | Accusation


@dataclass(frozen=True, slots=True)
class Author:
    """Makes a peer's own claims. `sign(purpose, bytes)` is the identity's; a simulation signs nothing."""

    peer: PeerId
    sign: Callable[[str, bytes], bytes]

    def statement(self, draft: Statement) -> Statement:
        signature = self.sign(_STATEMENT, encode(_statement(draft)))
        return Statement(draft.address, draft.incarnation, draft.sequence, draft.left, draft.load, signature)

    def accusation(self, peer: PeerId, incarnation: int) -> Accusation:
        draft = Accusation(peer, incarnation, self.peer)
        return Accusation(peer, incarnation, self.peer, self.sign(_ACCUSATION, encode(_accusation(draft))))


def author(identity: PrivateKey) -> Author:
    return Author(PeerId(identity.public), identity.sign)


def claim_row(claim: Claim) -> list[Any]:
    """As it is encoded; `parse_claim` reads it."""
    fields = _statement(claim) if isinstance(claim, Statement) else _accusation(claim)
    return [*fields, claim.signature]


def parse_claim(value: Any) -> Claim:
    """PeerFault unless well-formed. The signature is `require_signature`'s."""
    if type(value) is not list or len(value) not in (4, 7):
        raise PeerFault("expected a statement or an accusation")
    signature = parse.octets(value[-1], SIGNATURE_BYTES, SIGNATURE_BYTES)
    peer, incarnation = parse.peer_id(value[0]), parse.integer(value[1])
    if len(value) == 4:
        return Accusation(peer, incarnation, parse.peer_id(value[2]), signature)
    sequence, left, load, address = value[2:6]
    where, number = parse.address(address, peer, HINTS), parse.integer(sequence)
    return Statement(where, incarnation, number, parse.flag(left), _load(load), signature)


def require_signature(claim: Claim) -> None:
    """PeerFault for a claim its author did not sign."""
    if isinstance(claim, Statement):
        signer, purpose, fields = claim.peer, _STATEMENT, _statement(claim)
    else:
        signer, purpose, fields = claim.accuser, _ACCUSATION, _accusation(claim)
    if not is_signature(signer.key, purpose, encode(fields), claim.signature):
        raise PeerFault(f"a claim of {signer.short} is not signed by it")


def _statement(claim: Statement) -> list[Any]:
    load = claim.load
    loads = [load.queue, load.running, float(load.tokens_per_s), load.models, load.price]
    hints = parse.address_fields(claim.address, HINTS)
    return [claim.peer.key, claim.incarnation, claim.sequence, claim.left, loads, hints]


def _accusation(claim: Accusation) -> list[Any]:
    return [claim.peer.key, claim.incarnation, claim.accuser.key]


def _load(value: Any) -> Load:
    queue, running, tokens_per_s, models, price = parse.row(value, 5)
    return Load(
        parse.integer(queue, 0, 2**32), parse.integer(running, 0, 2**32), parse.number(tokens_per_s, 0, 1e12),
        parse.octets(models, DIGEST_BYTES), parse.integer(price),
    )  # fmt: skip
