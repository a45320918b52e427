"""What DHT peers say, and the one function for each kind of message that reads it.

method      request                   reply
dht.find    Find                      Found: nearer contacts, and records when asked for them
dht.put     Put: one's own record     Stored: why not, or ""

Every message begins with the sender's own contact, None from a client, which asks and is not asked.
Bounds: a request 8 kB, a reply 64 kB, 20 contacts, 32 records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.mesh import parse
from shoal.mesh.dht.contact import Contact, parse_contact
from shoal.mesh.dht.record import Record, parse_record
from shoal.mesh.peer_id import PeerId

MAX_REQUEST = 8 * 1024
MAX_REPLY = 64 * 1024
MAX_CONTACTS = 20
MAX_RECORDS = 32
KEY_BYTES = 32

Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Find:
    """The peers nearest to `key`, and the records of it if `wants_records`."""

    sender: Contact | None
    key: bytes
    wants_records: bool


@dataclass(frozen=True, slots=True)
class Found:
    sender: Contact | None
    contacts: tuple[Contact, ...]
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Put:
    sender: Contact | None
    record: Record


def find_bytes(find: Find) -> bytes:
    return encode([_sender(find.sender), find.key, find.wants_records])


def parse_find(data: Data, peer: PeerId) -> Find:
    """PeerFault also when the sender's contact is not `peer`'s, who is proven."""
    sender, key, wants = parse.row(parse.message(data, MAX_REQUEST), 3)
    return Find(_parsed_sender(sender, peer), parse.octets(key, KEY_BYTES, KEY_BYTES), parse.flag(wants))


def found_bytes(sender: Contact | None, contacts: Sequence[Contact], records: Sequence[Record]) -> bytes:
    """A reply within the bounds: contacts first, then as many records as fit."""
    rows: list[Any] = []
    left = MAX_REPLY - 24 * 1024
    for record in records[:MAX_RECORDS]:
        left -= record.size_bytes
        if left < 0:
            break
        rows.append(record.row())
    return encode([_sender(sender), [contact.row() for contact in contacts[:MAX_CONTACTS]], rows])


def parse_found(data: Data, peer: PeerId) -> Found:
    sender, contacts, records = parse.row(parse.message(data, MAX_REPLY), 3)
    return Found(
        _parsed_sender(sender, peer),
        tuple(parse_contact(value) for value in parse.many(contacts, MAX_CONTACTS)),
        tuple(parse_record(value) for value in parse.many(records, MAX_RECORDS)),
    )


def put_bytes(put: Put) -> bytes:
    return encode([_sender(put.sender), put.record.row()])


def parse_put(data: Data, peer: PeerId) -> Put:
    """PeerFault also when the record is not `peer`'s own: nobody stores for others."""
    sender, row = parse.row(parse.message(data, MAX_REQUEST), 2)
    record = parse_record(row)
    if record.author != peer:
        raise PeerFault(f"expected {peer.short}'s own record, found one of {record.author.short}")
    return Put(_parsed_sender(sender, peer), record)


def stored_bytes(refusal: str) -> bytes:
    return encode([refusal])


def parse_stored(data: Data) -> str:
    return parse.text(parse.row(parse.message(data, MAX_REQUEST), 1)[0], 200)


def _sender(contact: Contact | None) -> list[Any] | None:
    return None if contact is None else contact.row()


def _parsed_sender(value: Any, peer: PeerId) -> Contact | None:
    if value is None:
        return None
    contact = parse_contact(value)
    if contact.peer != peer:
        raise PeerFault(f"expected the contact of {peer.short}, found that of {contact.peer.short}")
    return contact
