"""One link of an author's chain: operations, when they were made, the hash of the link before, one signature.

`body` is what was signed, kept as it came; the link's hash is that of the body. One signature covers up to `MAX_OPS`
operations, so verification costs little where they are written together.

body = [namespace, author, sequence, previous, stamp, operations], sequence from 1, previous of the first: zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PUBLIC_BYTES, SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh import parse
from shoal.mesh.store.grant import HASH_BYTES, MAX_KEY, Grant, parse_grant
from shoal.mesh.store.stamp import MAX_STAMP

PURPOSE = "shoal store entry v1"
MAX_OPS = 100
MAX_VALUE = 16 * 1024
MAX_TAGS = 256
MAX_ENTRY = 64 * 1024
MAX_CHECKPOINT = 1024 * 1024
MAX_ITEMS = 50_000
"""Values in an entry, whatever its size: so many take 15 ms to read."""
ITEM_BYTES = 64
"""Memory that one value takes here beside its bytes: a tag (38 bytes, four values) takes about 250."""
MAX_SLOTS = 20_000
MAX_GRANTS = 64
MAX_SEQUENCE = 2**53
MAX_COUNT = 2**60
NOTHING_BEFORE = bytes(HASH_BYTES)

Tag = tuple[bytes, int, int]
"""Author, sequence and place in the entry: the name of one operation."""


@dataclass(frozen=True, slots=True)
class Put:
    """The newest wins, over all authors. `value` None deletes."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Add:
    """An element of the set at `key`; stays until somebody who saw this very operation removes it."""

    key: str
    element: bytes


@dataclass(frozen=True, slots=True)
class Remove:
    """Undo the additions its author had seen."""

    key: str
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Count:
    key: str
    change: int


@dataclass(frozen=True, slots=True)
class Present:
    """From here on this log may use a grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One key in a checkpoint: the author's own last word on it. `cell` is (stamp, sequence, place, value)."""

    key: str
    cell: tuple[int, int, int, bytes | None] | None
    adds: tuple[tuple[int, int, bytes], ...]
    removes: tuple[Tag, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that still counts of the log before; alone in its entry. Whoever has it needs nothing before it."""

    slots: tuple[SlotRow, ...]
    grants: tuple[Grant, ...]


Operation = Put | Add | Remove | Count | Present | Checkpoint


@dataclass(frozen=True, slots=True)
class Link:
    """Where an entry stands."""

    namespace: bytes
    author: bytes
    sequence: int
    previous: bytes
    stamp: int


@dataclass(frozen=True, slots=True)
class Entry:
    link: Link
    operations: tuple[Operation, ...]
    body: bytes
    signature: bytes
    hash: bytes
    num_items: int

    @property
    def is_checkpoint(self) -> bool:
        return len(self.operations) == 1 and isinstance(self.operations[0], Checkpoint)

    @property
    def size_bytes(self) -> int:
        return len(self.body) + len(self.signature)

    @property
    def cost_bytes(self) -> int:
        """Memory it takes, about: what room is counted in. A megabyte of tiny values takes fifty of them."""
        return self.size_bytes + ITEM_BYTES * self.num_items

    def row(self) -> list[bytes]:
        return [self.body, self.signature]


def signed(link: Link, operations: Sequence[Operation], key: PrivateKey) -> Entry:
    """A new entry. ValueError for one that no peer would take."""
    rows = [_row(operation) for operation in operations]
    body = encode([link.namespace, link.author, link.sequence, link.previous, link.stamp, rows])
    try:
        return parse_entry([body, key.sign(PURPOSE, body)])
    except PeerFault as error:
        raise ValueError(f"this cannot be written: {error}") from error


def require_signature(entry: Entry) -> None:
    """PeerFault unless its author signed it."""
    if not is_signature(entry.link.author, PURPOSE, entry.body, entry.signature):
        raise PeerFault("expected an entry signed by its author")


def parse_entry(value: Any) -> Entry:
    """A well-formed entry; the signature is checked apart, because known entries need no check."""
    raw, signature = parse.row(value, 2)
    body = parse.octets(raw, MAX_CHECKPOINT)
    num_items = parse.count(body, MAX_ITEMS)
    fields = parse.row(parse.message(body, MAX_CHECKPOINT), 6)
    link = _parse_link(fields)
    operations = tuple(_parse_operation(row, link) for row in parse.many(fields[5], MAX_OPS))
    if not operations:
        raise PeerFault("expected an entry with operations")
    is_checkpoint = any(isinstance(operation, Checkpoint) for operation in operations)
    if is_checkpoint and len(operations) > 1:
        raise PeerFault("expected a checkpoint alone in its entry")
    if not is_checkpoint and len(body) > MAX_ENTRY:
        raise PeerFault(f"expected an entry of at most {MAX_ENTRY} bytes, found {len(body)}")
    signature = parse.octets(signature, SIGNATURE_BYTES, SIGNATURE_BYTES)
    return Entry(link, operations, body, signature, blake3_digest(PURPOSE, body), num_items)


def _parse_link(fields: list[Any]) -> Link:
    return Link(
        parse.octets(fields[0], HASH_BYTES, HASH_BYTES),
        parse.octets(fields[1], PUBLIC_BYTES, PUBLIC_BYTES),
        parse.integer(fields[2], 1, MAX_SEQUENCE),
        parse.octets(fields[3], HASH_BYTES, HASH_BYTES),
        parse.integer(fields[4], 0, MAX_STAMP),
    )


def _row(operation: Operation) -> list[Any]:
    match operation:
        case Put(key, value):
            return [0, key, value]
        case Add(key, element):
            return [1, key, element]
        case Remove(key, tags):
            return [2, key, tags]
        case Count(key, change):
            return [3, key, change]
        case Present(grant):
            return [4, grant.row()]
        case Checkpoint(slots, grants):
            rows = [[slot.key, slot.cell, slot.adds, slot.removes, slot.count] for slot in slots]
            return [5, rows, [grant.row() for grant in grants]]


def _parse_operation(value: Any, link: Link) -> Operation:
    row = parse.many(value, 3)
    if len(row) < 2:
        raise PeerFault("expected an operation")
    kind = parse.integer(row[0], 0, 5)
    if len(row) != (2 if kind == 4 else 3):
        raise PeerFault(f"operation {kind} has {len(row)} fields")
    if kind == 4:
        return Present(parse_grant(row[1], link.namespace, link.author))
    if kind == 5:
        slots = tuple(_parse_slot(slot, link) for slot in parse.many(row[1], MAX_SLOTS))
        grants = parse.many(row[2], MAX_GRANTS)
        return Checkpoint(slots, tuple(parse_grant(grant, link.namespace, link.author) for grant in grants))
    return _parse_change(kind, parse.text(row[1], MAX_KEY), row[2])


def _parse_change(kind: int, key: str, value: Any) -> Operation:
    if kind == 0:
        return Put(key, _value(value))
    if kind == 1:
        return Add(key, parse.octets(value, MAX_VALUE))
    if kind == 2:
        return Remove(key, tuple(_tag(tag) for tag in parse.many(value, MAX_TAGS)))
    return Count(key, parse.integer(value, -MAX_COUNT, MAX_COUNT))


def _parse_slot(value: Any, link: Link) -> SlotRow:
    key, cell, adds, removes, count = parse.row(value, 5)
    before = link.sequence - 1
    parsed = None
    if cell is not None:
        stamp, sequence, place, content = parse.row(cell, 4)
        parsed = (
            parse.integer(stamp, 0, link.stamp),
            parse.integer(sequence, 1, before),
            parse.integer(place, 0, MAX_OPS),
            _value(content),
        )
    rows = [parse.row(add, 3) for add in parse.many(adds, MAX_SLOTS)]
    return SlotRow(
        parse.text(key, MAX_KEY),
        parsed,
        tuple(
            (parse.integer(sequence, 1, before), parse.integer(place, 0, MAX_OPS), parse.octets(element, MAX_VALUE))
            for sequence, place, element in rows
        ),
        tuple(_tag(tag) for tag in parse.many(removes, MAX_SLOTS)),
        parse.integer(count, -MAX_COUNT, MAX_COUNT),
    )


def _value(value: Any) -> bytes | None:
    return None if value is None else parse.octets(value, MAX_VALUE)


def _tag(value: Any) -> Tag:
    author, sequence, place = parse.row(value, 3)
    return (
        parse.octets(author, PUBLIC_BYTES, PUBLIC_BYTES),
        parse.integer(sequence, 1, MAX_SEQUENCE),
        parse.integer(place, 0, MAX_OPS),
    )
