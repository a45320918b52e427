"""A node's chain of receipts on its disk: `home/receipts/chain.sqlite`, readable by its owner only.

Rules that stay true in this file:
- a receipt is on the disk before anybody gets it, so a crash loses none that was given out and no number is used twice;
- several processes with one home write one chain;
- of receipts beyond the newest `max_bodies` only the digests stay: the chain can still be followed;
- digests beyond the newest `max_digests` are forgotten too, but for the head that they led to.

Openings are never written: they would be everybody's prompts on one disk. `Openings` keeps the latest in memory.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.core.errors import BadConfig, LocalError
from shoal.core.receipt import Opening, Receipt
from shoal.trust.chain import first_head, next_head
from shoal.trust.receipt import MAX_RECEIPT_BYTES, read_receipt, receipt_digest, write_opening, write_receipt

MAX_BODIES = 20_000
"""About 1 kB each."""
MAX_DIGESTS = 1_000_000
"""About 130 bytes each."""
PRUNE_EVERY = 256
MIN_FREE_BYTES = 2**18
"""One receipt takes some pages of the file and of its log."""
BUSY_S = 10.0
MAX_OPENINGS = 256
MAX_OPENING_BYTES = 32 * 2**20
_TABLE = """CREATE TABLE IF NOT EXISTS receipts (
    node BLOB NOT NULL, sequence INTEGER NOT NULL, digest BLOB NOT NULL, head BLOB NOT NULL,
    request_id TEXT, body BLOB, PRIMARY KEY (node, sequence)) WITHOUT ROWID"""
_FORGOTTEN = """CREATE TABLE IF NOT EXISTS forgotten (
    node BLOB PRIMARY KEY, sequence INTEGER NOT NULL, head BLOB NOT NULL) WITHOUT ROWID"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_request ON receipts (request_id) WHERE request_id IS NOT NULL"


class Shelf:
    """Safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        max_bodies: int = MAX_BODIES,
        max_digests: int = MAX_DIGESTS,
        min_free_bytes: int = MIN_FREE_BYTES,
    ) -> None:
        """BadConfig where the file cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        path = folder / "chain.sqlite"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        self._max_bodies, self._max_digests = max_bodies, max_digests
        self._folder, self._min_free_bytes = folder, min_free_bytes
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _TABLE, _INDEX, _FORGOTTEN):
                self._db.execute(statement)
        except sqlite3.Error as error:
            raise BadConfig(str(path), f"expected this node's receipts, found something else: {error}") from error

    def append(self, node: bytes, make: Callable[[int, bytes], Receipt]) -> Receipt:
        """The receipt that `make` signs with the next number and the chain's head. LocalError for a disk that fails."""
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                sequence, head = self._head(node)
                receipt = make(sequence + 1, head)
                digest, body = receipt_digest(receipt), write_receipt(receipt)
                if len(body) > MAX_RECEIPT_BYTES:  # nobody would read it again, nor what comes after it
                    raise LocalError(f"expected a receipt of at most {MAX_RECEIPT_BYTES} bytes, found {len(body)}")
                row = (node, sequence + 1, digest, next_head(head, digest), receipt.request_id, body)
                self._db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)", row)
                if (sequence + 1) % PRUNE_EVERY == 0:
                    self._prune(node, sequence + 1)
                return receipt
        except sqlite3.Error as error:
            raise LocalError(f"the receipt could not be written down, so it is not given out: {error}") from error

    def check_writable(self) -> None:
        """LocalError where `append` is sure to fail, so that nothing is computed for it. What it cannot see: quotas."""
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("ROLLBACK")
            free = shutil.disk_usage(self._folder).free
        except (sqlite3.Error, OSError) as error:
            raise LocalError(f"the receipt could not be written down: {error}; ask without one, or mend it") from error
        if free < self._min_free_bytes:
            raise LocalError(
                f"the receipt could not be written down: {self._folder} has {free} bytes left, "
                f"expected {self._min_free_bytes} at least; make room, or ask without a receipt"
            )

    def find(self, name: str) -> Receipt | None:
        """The newest receipt of the request `name`, or the one whose number that is."""
        column, value = ("sequence", int(name)) if name.isdecimal() and len(name) < 19 else ("request_id", name)
        query = f"SELECT body FROM receipts WHERE {column} = ? AND body IS NOT NULL ORDER BY sequence DESC LIMIT 1"  # noqa: S608
        rows = self._select(query, (value,))
        return read_receipt(rows[0][0]) if rows else None

    def newest(self, count: int) -> list[Receipt]:
        """The latest receipts, oldest first."""
        rows = self._select("SELECT body FROM receipts WHERE body IS NOT NULL ORDER BY sequence DESC LIMIT ?", (count,))
        return [read_receipt(row[0]) for row in reversed(rows)]

    def num_signed(self) -> int:
        return int(self._select("SELECT COUNT(*) FROM receipts", ())[0][0])

    def problems(self, node: bytes) -> list[str]:
        """What is wrong with the chain as it lies on the disk, digests without text included."""
        begun = self._select("SELECT sequence, head FROM forgotten WHERE node = ?", (node,))
        before, head = begun[0] if begun else (0, first_head(node))
        found, expected = list[str](), before + 1
        rows = self._select(
            "SELECT sequence, digest, head, body FROM receipts WHERE node = ? ORDER BY sequence", (node,)
        )
        for sequence, digest, after, body in rows:
            if sequence != expected:
                found.append(f"gap: number {expected} is missing")
            elif next_head(head, digest) != after or (body and receipt_digest(read_receipt(body)) != digest):
                found.append(f"number {sequence} does not follow the one before it")
            expected, head = sequence + 1, after
        return found

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _head(self, node: bytes) -> tuple[int, bytes]:
        query = "SELECT sequence, head FROM receipts WHERE node = ? ORDER BY sequence DESC LIMIT 1"
        row = self._db.execute(query, (node,)).fetchone()
        return (0, first_head(node)) if row is None else (row[0], row[1])

    def _prune(self, node: bytes, sequence: int) -> None:
        self._db.execute(
            "UPDATE receipts SET body = NULL, request_id = NULL WHERE node = ? AND sequence <= ? AND body IS NOT NULL",
            (node, sequence - self._max_bodies),
        )
        last = (node, sequence - self._max_digests)
        query = "SELECT node, sequence, head FROM receipts WHERE node = ? AND sequence = ?"
        self._db.execute(f"INSERT OR REPLACE INTO forgotten {query}", last)
        self._db.execute("DELETE FROM receipts WHERE node = ? AND sequence <= ?", last)

    def _select(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LocalError(f"this node's receipts cannot be read: {error}") from error


class Openings:
    """The latest openings by request, in memory: gone with the process, or when newer ones need the room."""

    def __init__(self, max_count: int = MAX_OPENINGS, max_bytes: int = MAX_OPENING_BYTES) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._kept: OrderedDict[str, tuple[Opening, int]] = OrderedDict()
        self._size_bytes = 0

    def keep(self, request_id: str, opening: Opening) -> None:
        self._drop(request_id)
        self._kept[request_id] = opening, (size := len(write_opening(opening)))
        self._size_bytes += size
        while len(self._kept) > self._max_count or self._size_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, request_id: str) -> Opening | None:
        found = self._kept.get(request_id)
        return None if found is None else found[0]

    def _drop(self, request_id: str) -> None:
        if request_id in self._kept:
            self._size_bytes -= self._kept.pop(request_id)[1]
