"""Logs in one SQLite file. A change is there whole or not at all, through kill -9 and loss of power (WAL, full sync).

A file that is damaged is put aside under another name and reported; peers have what was in it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shoal.core.encoding import decode, encode
from shoal.core.errors import LocalError, ShoalError
from shoal.mesh.store.entry import Entry, parse_entry
from shoal.mesh.store.log import Fork, Log, parse_fork

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (namespace BLOB, author BLOB, sequence INTEGER, hash BLOB, row BLOB,
    PRIMARY KEY (namespace, author, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forks (namespace BLOB, author BLOB, row BLOB, PRIMARY KEY (namespace, author));
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """What changed in one log."""

    log: Log
    base: int
    head: int
    fork: Fork | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """`damage`: why an old file was put aside and this begins empty; "" if it was not."""

    entries: tuple[Entry, ...] = ()
    forks: tuple[Fork, ...] = ()
    damage: str = ""


class Disk:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def load(self, namespace: bytes) -> Loaded:
        """Open and read everything of a namespace. LocalError where no file can be made."""
        with self._lock:
            try:
                return self._read(namespace)
            except (sqlite3.DatabaseError, ShoalError) as error:
                if isinstance(error, sqlite3.OperationalError) and not self._path.exists():
                    raise LocalError(f"{self._path} cannot be made: {error}") from error
                damage = f"{self._path} is damaged ({error})"
            damage += f"; it is kept as {self._put_aside().name}"
            try:
                self._read(namespace)
            except sqlite3.DatabaseError as error:
                raise LocalError(f"{self._path} cannot be made: {error}") from error
            return Loaded(damage=damage)

    def save(self, namespace: bytes, changes: Iterable[Saved]) -> None:
        """All of them or none. LocalError where the disk does not take it."""
        with self._lock:
            if self._connection is None:
                raise LocalError("the store is closed")
            try:
                with self._connection as connection:
                    for change in changes:
                        _write(connection, namespace, change)
            except sqlite3.Error as error:
                raise LocalError(f"{self._path} was not written: {error}") from error

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _read(self, namespace: bytes) -> Loaded:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_private()
        connection = self._connection = sqlite3.connect(self._path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        rows = connection.execute(
            "SELECT hash, row FROM entries WHERE namespace = ? ORDER BY author, sequence", [namespace]
        )
        entries = tuple(_entry(hash_, row) for hash_, row in rows)
        forks = connection.execute("SELECT row FROM forks WHERE namespace = ?", [namespace])
        return Loaded(entries, tuple(parse_fork(decode(row)) for (row,) in forks))

    def _keep_private(self) -> None:
        """Readable by its owner only; what SQLite writes beside it gets the same mode."""
        try:
            os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            raise LocalError(f"{self._path} cannot be made: {error.strerror}") from error

    def _put_aside(self) -> Path:
        if self._connection is not None:
            self._connection.close()
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm"):
            beside = self._path.with_name(self._path.name + suffix)
            if beside.exists():
                os.replace(beside, aside.with_name(aside.name + suffix))
        os.replace(self._path, aside)
        return aside


def _write(connection: sqlite3.Connection, namespace: bytes, change: Saved) -> None:
    author = change.log.author
    connection.execute(
        "DELETE FROM entries WHERE namespace = ? AND author = ? AND (sequence < ? OR sequence > ?)",
        [namespace, author, change.base, change.head],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)",
        [(namespace, author, entry.link.sequence, entry.hash, encode(entry.row())) for entry in change.entries],
    )
    if change.fork is not None:
        row = encode(change.fork.row())
        connection.execute("INSERT OR REPLACE INTO forks VALUES (?, ?, ?)", [namespace, author, row])


def _entry(hash_: bytes, row: bytes) -> Entry:
    """What was written, or an error where a bit has changed since: no signature needs checking again."""
    entry = parse_entry(decode(row))
    if entry.hash != hash_:
        raise sqlite3.DatabaseError("an entry is not what was written")
    return entry
