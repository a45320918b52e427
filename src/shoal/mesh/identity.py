"""This node's key: one file, made on the first start, readable by its owner only.

    identity.key          the key in use
    identity.<old>.key    a key that was replaced, kept
    rotations.cbor        the signed statements "old is now new", oldest first

Backup is copying `identity.key` while keeping it private; restoring is copying it back. Whoever holds a copy is this
node to every peer, so two nodes never run on one copy.

Rotation: `rotate` makes a new key, signs `old -> new` with both, keeps the old key and starts using the new one. Peers
that trusted the old id check the statements with `successor`; they learn nothing from one that is missing a signature.

What this does not protect against: somebody who reads the file (root, an unencrypted backup) or this process's memory.
A thief of the old key can state another successor: two statements for one old key are proof of the theft, and
`successor` then believes neither.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.core.encoding import decode, encode
from shoal.core.errors import BadConfig, PeerFault, RemoteError
from shoal.crypto.keys import PUBLIC_BYTES, SEED_BYTES, SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh.peer_id import PeerId

HEADER = "shoal identity v1"
PURPOSE = "shoal rotation v1"
MAX_ROTATIONS = 64
MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Rotation:
    """ "`old` is now `new`", said at `time` (whole seconds since 1970) by both keys."""

    old: bytes
    new: bytes
    time: int
    by_old: bytes
    by_new: bytes

    @property
    def is_valid(self) -> bool:
        statement = _statement(self.old, self.new, self.time)
        return (
            self.old != self.new
            and is_signature(self.old, PURPOSE, statement, self.by_old)
            and is_signature(self.new, PURPOSE, statement, self.by_new)
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """The key in use and the statements that lead to it, oldest first."""

    key: PrivateKey
    rotations: tuple[Rotation, ...] = ()

    @property
    def peer(self) -> PeerId:
        return PeerId(self.key.public)


def load_identity(folder: Path) -> Identity:
    """The identity in `folder`, made there if there is none; of several processes at once, one makes it.

    BadConfig for a file that others may read or that is not an identity; nothing is ever overwritten.
    """
    path = folder / "identity.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name == "mesh":  # the node's own: what else lies there is nobody's business either
            folder.chmod(0o700)
        _create(path, _key_text(PrivateKey.generate()))
    return Identity(_read_key(path), _read_rotations(folder / "rotations.cbor"))


def rotate(folder: Path, time: float) -> Identity:
    """A new key in use from now on; the old one kept beside it. `time`: seconds since 1970."""
    old = load_identity(folder)
    if len(old.rotations) >= MAX_ROTATIONS:
        raise BadConfig("identity", f"{MAX_ROTATIONS} rotations are the most; start with a new home folder")
    new = PrivateKey.generate()
    rotations = (*old.rotations, _signed(old.key, new, int(time)))
    _create(folder / f"identity.{old.peer.short}.key", _key_text(old.key))
    _replace(folder / "rotations.cbor", encode(rotations))
    _replace(folder / "identity.key", _key_text(new).encode())
    return Identity(new, rotations)


def parse_rotations(data: bytes) -> tuple[Rotation, ...]:
    """Statements from a peer, every one valid by itself. PeerFault for anything else."""
    if len(data) > MAX_FILE_BYTES:
        raise PeerFault(f"expected at most {MAX_FILE_BYTES} bytes of rotations, found {len(data)}")
    try:
        rows = decode(data)
    except RemoteError as error:
        raise PeerFault(f"rotations: {error}") from error
    if not isinstance(rows, list) or len(rows) > MAX_ROTATIONS:
        raise PeerFault(f"expected a list of at most {MAX_ROTATIONS} rotations")
    return tuple(_rotation(row) for row in rows)


def successor(peer: PeerId, rotations: Iterable[Rotation]) -> PeerId:
    """Who `peer` is now by these statements: itself where nobody, or more than one, was named."""
    nexts: dict[bytes, set[bytes]] = {}
    for rotation in rotations:
        if rotation.is_valid:
            nexts.setdefault(rotation.old, set()).add(rotation.new)
    seen = {peer.key}
    key = peer.key
    while len(found := nexts.get(key, set())) == 1:
        key = next(iter(found))
        if key in seen:
            return peer
        seen.add(key)
    return PeerId(key)


def _statement(old: bytes, new: bytes, time: int) -> bytes:
    return encode([old, new, time])


def _signed(old: PrivateKey, new: PrivateKey, time: int) -> Rotation:
    statement = _statement(old.public, new.public, time)
    return Rotation(old.public, new.public, time, old.sign(PURPOSE, statement), new.sign(PURPOSE, statement))


def _rotation(row: Any) -> Rotation:
    sizes = {"old": PUBLIC_BYTES, "new": PUBLIC_BYTES, "by_old": SIGNATURE_BYTES, "by_new": SIGNATURE_BYTES}
    is_shaped = (
        isinstance(row, dict)
        and row.keys() == {*sizes, "time"}
        and all(isinstance(row[name], bytes) and len(row[name]) == size for name, size in sizes.items())
        and type(row["time"]) is int
    )
    if not is_shaped:
        raise PeerFault("expected a rotation with old, new, time, by_old and by_new")
    rotation = Rotation(**row)
    if not rotation.is_valid:
        raise PeerFault("a rotation is not signed by both of its keys")
    return rotation


def _key_text(key: PrivateKey) -> str:
    return f"{HEADER}\n{key.seed.hex()}\n{PeerId(key.public)}\n"


def _read_key(path: Path) -> PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise BadConfig("identity", f"{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")
    lines = path.read_bytes()[:MAX_FILE_BYTES].decode(errors="replace").splitlines()
    if len(lines) != 3 or lines[0] != HEADER:
        raise _malformed(path, f"expected three lines, the first {HEADER!r}")
    try:
        seed = bytes.fromhex(lines[1])
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise _malformed(path, f"the second line must be {2 * SEED_BYTES} hexadecimal digits")
    key = PrivateKey(seed)
    if lines[2] != str(PeerId(key.public)):
        raise _malformed(path, "the third line is not the peer id of the second line's key")
    return key


def _malformed(path: Path, what: str) -> BadConfig:
    return BadConfig("identity", f"{path} is damaged: {what}; restore a backup, or move it away to start as a new peer")


def _read_rotations(path: Path) -> tuple[Rotation, ...]:
    if not path.exists():
        return ()
    try:
        return parse_rotations(path.read_bytes())
    except PeerFault as error:
        raise BadConfig("identity", f"{path} is damaged: {error}; restore a backup, or move it away") from error


def _create(path: Path, text: str) -> None:
    """Whole or not at all, and never over another's: a link fails where a name exists."""
    partial = _partial(path, text.encode())
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    finally:
        partial.unlink()


def _replace(path: Path, data: bytes) -> None:
    os.replace(_partial(path, data), path)


def _partial(path: Path, data: bytes) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return partial
