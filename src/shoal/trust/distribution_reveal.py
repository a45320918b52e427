"""Commit, then reveal: nobody copies what another verifier says, and nobody changes its mind.

    1  each verifier signs a commitment to its claims
    2  the drawer shows all commitments to all; each then signs and shows its claims for exactly that list

A verifier shows nothing before it has seen signed commitments of more than half of those drawn, its own among them; so
whoever waits for others' claims is not in the list that counts.

What this does not protect against: verifiers that share their results beforehand because they know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.core.decoding import compact
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PrivateKey, is_signature
from shoal.trust.distribution import Claims
from shoal.trust.distribution_draw import Drawn, Task

SALT_BYTES = 32
_CLAIMS = "shoal audit claims v1"
_COMMITTED = "shoal audit commitment v1"
_REVEALED = "shoal audit reveal v1"


@dataclass(frozen=True, slots=True)
class Commitment:
    """`peer` stands by claims whose hash this is."""

    peer: bytes
    hidden: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class RevealAsked:
    """Of the task with this digest: everything that was committed, in the order of the public keys."""

    task: bytes
    commitments: tuple[Commitment, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    """What the commitment hid, signed together with the list it was shown for."""

    salt: bytes
    claims: Claims
    signature: bytes


def commitment(key: PrivateKey, task: bytes, salt: bytes, claims: Claims) -> Commitment:
    """`task`: its digest; `salt`: 32 random bytes, kept until the reveal."""
    hidden = _hidden(key.public, task, salt, claims)
    return Commitment(key.public, hidden, key.sign(_COMMITTED, encode([task, hidden])))


def is_committed(item: Commitment, task: bytes) -> bool:
    return is_signature(item.peer, _COMMITTED, encode([task, item.hidden]), item.signature)


def reveal(key: PrivateKey, asked: RevealAsked, salt: bytes, claims: Claims) -> Revealed:
    return Revealed(salt, claims, key.sign(_REVEALED, _statement(asked, claims)))


def check_list(asked: RevealAsked, task: Task, drawn: Drawn, own: Commitment) -> None:
    """InvalidRequest for a list that this verifier should not show its claims for."""
    peers = [item.peer for item in asked.commitments]
    allowed = {*drawn.verifiers, task.answerer}
    if peers != sorted(set(peers)) or not set(peers) <= allowed or own not in asked.commitments:
        raise InvalidRequest("expected commitments of those drawn, sorted, mine among them", "commitments")
    if not all(is_committed(item, asked.task) for item in asked.commitments):
        raise InvalidRequest("expected signed commitments, found one that is not", "commitments")
    if 2 * len(set(peers) & set(drawn.verifiers)) <= len(drawn.verifiers):
        raise InvalidRequest("expected commitments of more than half of those drawn", "commitments")


def check_revealed(shown: Revealed, asked: RevealAsked, own: Commitment) -> None:
    """PeerFault for claims other than those committed to, or not signed for this list."""
    if len(shown.salt) != SALT_BYTES or _hidden(own.peer, asked.task, shown.salt, shown.claims) != own.hidden:
        raise PeerFault("expected the claims that were committed to, found others")
    if not is_signature(own.peer, _REVEALED, _statement(asked, shown.claims), shown.signature):
        raise PeerFault("expected claims signed for this list of commitments")


def in_order(items: Sequence[Commitment]) -> tuple[Commitment, ...]:
    return tuple(sorted(items, key=lambda item: item.peer))


def _hidden(peer: bytes, task: bytes, salt: bytes, claims: Claims) -> bytes:
    return blake3_digest(_CLAIMS, salt + peer + task + encode(compact(claims)))


def _statement(asked: RevealAsked, claims: Claims) -> bytes:
    return encode([compact(asked), compact(claims)])
