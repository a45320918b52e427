"""What replicas say to each other, and the one function that reads each kind of message.

method          request                                 reply
store.compare   Compare: fingerprints of ranges         for each range a Finding (`heads`)
store.entries   Wanted: from which sequence, by author  Bundle
store.push      Bundle                                  nothing

Each request begins with the namespace's id. Bounds: 64 ranges, 256 authors, 4 MiB and 8,192 entries a bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.keys import PUBLIC_BYTES
from shoal.mesh import parse
from shoal.mesh.store.entry import MAX_SEQUENCE, Entry, parse_entry
from shoal.mesh.store.grant import HASH_BYTES
from shoal.mesh.store.heads import FEW, PRINT_BYTES, WAYS, Finding, Head, Items, Printed, Range
from shoal.mesh.store.log import Fork, parse_fork

MAX_RANGES = 64
MAX_AUTHORS = 256
MAX_CONTROL = 128 * 1024
BUNDLE_BYTES = 2**20
MAX_BUNDLE = 4 * 2**20
"""A bundle that is full but for a byte may get a fork of two checkpoints more."""
MAX_ENTRIES = 8192
MAX_FORKS = 16
MAX_ITEMS = 8 + 3 * MAX_ENTRIES + 7 * MAX_FORKS
MAX_CONTROL_ITEMS = 8 + 4 * 17 * 64
"""Of requests, and of the answers to them: arrays and their rows."""

FINDING_ITEMS = 3 + 5 * max(FEW, WAYS)

Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Bundle:
    """Entries and forks. `is_more`: the asked side has more of what was wanted."""

    entries: tuple[Entry, ...]
    forks: tuple[Fork, ...]
    is_more: bool


def compare_bytes(namespace: bytes, ranges: Sequence[Printed]) -> bytes:
    return encode([namespace, [_printed_row(item) for item in ranges[:MAX_RANGES]]])


def parse_compare(data: Data, namespace: bytes) -> tuple[Printed, ...]:
    rows = parse.many(_of(namespace, data, MAX_CONTROL, 2)[1], MAX_RANGES)
    asked = tuple(_parse_printed(row) for row in rows)
    edges = sorted((item.range.low, item.range.high) for item in asked)
    if any(high >= low for (_, high), (low, _) in pairwise(edges)):
        raise PeerFault("expected ranges that do not overlap")  # so that an answer reads no log twice
    return asked


def findings_bytes(findings: Iterable[Finding]) -> bytes:
    return encode([_finding_row(finding) for finding in findings])


def parse_findings(data: Data, asked: Sequence[Printed]) -> tuple[Finding, ...]:
    """One for each range asked about; PeerFault where they do not fit into it."""
    rows = parse.row(parse.message(data, 2 * MAX_CONTROL, 2 * FINDING_ITEMS * len(asked) + 8), len(asked))
    return tuple(_parse_finding(row, item.range) for row, item in zip(rows, asked, strict=True))


def wanted_bytes(namespace: bytes, wanted: dict[bytes, int]) -> bytes:
    return encode([namespace, list(wanted.items())[:MAX_AUTHORS]])


def parse_wanted(data: Data, namespace: bytes) -> dict[bytes, int]:
    rows = parse.many(_of(namespace, data, MAX_CONTROL, 2)[1], MAX_AUTHORS)
    pairs = [parse.row(row, 2) for row in rows]
    return {_author(author): parse.integer(sequence, 1, MAX_SEQUENCE + 1) for author, sequence in pairs}


def bundle_bytes(namespace: bytes, bundle: Bundle) -> bytes:
    forks = [fork.row() for fork in bundle.forks]
    return encode([namespace, [entry.row() for entry in bundle.entries], forks, bundle.is_more])


def parse_bundle(data: Data, namespace: bytes) -> Bundle:
    """Entries are well-formed, their signatures not checked yet; forks are proven."""
    _, rows, forks, is_more = _of(namespace, data, MAX_BUNDLE, 4)
    return Bundle(
        tuple(parse_entry(row) for row in parse.many(rows, MAX_ENTRIES)),
        tuple(parse_fork(row) for row in parse.many(forks, MAX_FORKS)),
        parse.flag(is_more),
    )


def bundled(entries: Iterable[Entry], forks: Iterable[Fork]) -> Bundle:
    """As many as fit into one bundle, in this order: forks first."""
    kept_forks, kept, size = list[Fork](), list[Entry](), 0
    for fork in forks:
        if size > BUNDLE_BYTES or len(kept_forks) == MAX_FORKS:
            return Bundle((), tuple(kept_forks), is_more=True)
        kept_forks.append(fork)
        size += fork.one.size_bytes + fork.other.size_bytes
    for entry in entries:
        if size > BUNDLE_BYTES or len(kept) == MAX_ENTRIES:
            return Bundle(tuple(kept), tuple(kept_forks), is_more=True)
        kept.append(entry)
        size += entry.size_bytes
    return Bundle(tuple(kept), tuple(kept_forks), is_more=False)


def _of(namespace: bytes, data: Data, at_most: int, length: int) -> list[Any]:
    fields = parse.row(parse.message(data, at_most, MAX_ITEMS if at_most == MAX_BUNDLE else MAX_CONTROL_ITEMS), length)
    if parse.octets(fields[0], HASH_BYTES, HASH_BYTES) != namespace:
        raise PeerFault("expected a message about another namespace than this one")
    return fields


def _printed_row(item: Printed) -> list[bytes]:
    return [item.range.low, item.range.high, item.fingerprint]


def _parse_printed(value: Any) -> Printed:
    low, high, fingerprint = parse.row(value, 3)
    wanted = Range(_author(low), _author(high))
    if wanted.low > wanted.high:
        raise PeerFault("expected a range that begins before it ends")
    return Printed(wanted, parse.octets(fingerprint, PRINT_BYTES, PRINT_BYTES))


def _finding_row(finding: Finding) -> Any:
    match finding:
        case None:
            return None
        case Items(_, heads):
            return [0, [[head.author, head.sequence, head.hash, head.fork] for head in heads]]
        case printed:
            return [1, [_printed_row(item) for item in printed]]


def _parse_finding(value: Any, within: Range) -> Finding:
    if value is None:
        return None
    kind, rows = parse.row(value, 2)
    if parse.integer(kind, 0, 1) == 0:
        heads = tuple(_parse_head(row) for row in parse.many(rows, FEW))
        if any(not within.low <= head.author <= within.high for head in heads):
            raise PeerFault("expected heads within the range that was asked about")
        return Items(within, heads)
    printed = tuple(_parse_printed(row) for row in parse.many(rows, WAYS))
    edges = [(item.range.low, item.range.high) for item in printed]
    if len(edges) < 2 or any(high >= low for (_, high), (low, _) in pairwise(edges)):
        raise PeerFault("expected smaller ranges in order")  # so that every round asks about less than the last
    if edges[0][0] < within.low or edges[-1][1] > within.high:
        raise PeerFault("expected ranges within the one that was asked about")
    return printed


def _parse_head(value: Any) -> Head:
    author, sequence, hash_, fork = parse.row(value, 4)
    return Head(
        _author(author),
        parse.integer(sequence, 0, MAX_SEQUENCE),
        parse.octets(hash_, HASH_BYTES, HASH_BYTES),
        parse.integer(fork, 0, MAX_SEQUENCE),
    )


def _author(value: Any) -> bytes:
    return parse.octets(value, PUBLIC_BYTES, PUBLIC_BYTES)
