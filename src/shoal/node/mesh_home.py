"""What a node keeps of its mesh on disk, under `home/mesh`, readable by its owner only.

identity.key   who this node is (`mesh.identity`)
swarm.key      the secret of the private swarm this node began; made when it first shares
port           where peers found it last time
ticket         what others join with, while this node runs
peers          tickets of peers seen lately: where to begin next time
control        port and token of the running node's door for its owner (`mesh_control`)
lock           held (flock) by the node that runs with this home
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from shoal.core.errors import BadConfig, ShoalError
from shoal.mesh.address import Address
from shoal.mesh.identity import Identity, load_identity
from shoal.mesh.rpc.hello import SECRET_BYTES
from shoal.mesh.ticket import MAX_BOOTSTRAP, Ticket, parse_ticket


def read_tickets(texts: Iterable[str], now: float) -> list[Ticket]:
    """What `--ticket` and `shoal join` take: a ticket, or @FILE that holds one, which no list of processes shows.

    InvalidRequest for what is none, BadConfig for a file that cannot be read.
    """
    return [parse_ticket(_from_file(text[1:]) if text.startswith("@") else text, now) for text in texts]


def _from_file(name: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise BadConfig("ticket", f"{name} cannot be read: {error.strerror}") from error


class MeshHome:
    def __init__(self, home: Path) -> None:
        self._folder = home / "mesh"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """One node at a time: two with one identity would take each other's links. BadConfig while another runs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        with (self._folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = f"another node runs with {self._folder.parent}; stop it, or give this one a home of its own"
                raise BadConfig("home", told) from None
            yield

    def identity(self) -> Identity:
        return load_identity(self._folder)

    def own_secret(self) -> bytes:
        """Of the swarm this node began. BadConfig for a file that is not one."""
        path = self._folder / "swarm.key"
        if not path.exists():
            self._write(path, secrets.token_bytes(SECRET_BYTES).hex())
        text = path.read_text(encoding="ascii", errors="replace").strip()
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != SECRET_BYTES:
            raise BadConfig(str(path), f"expected {SECRET_BYTES} bytes in hexadecimal; delete it to begin a new swarm")
        return secret

    def port(self) -> int:
        """That of last time, 0 if there was none."""
        with contextlib.suppress(OSError, ValueError):
            port = int((self._folder / "port").read_text())
            return port if 0 < port < 65536 else 0
        return 0

    def save_port(self, port: int) -> None:
        self._write(self._folder / "port", str(port))

    def save_ticket(self, ticket: Ticket) -> None:
        self._write(self._folder / "ticket", str(ticket))

    def ticket(self) -> str | None:
        path = self._folder / "ticket"
        return path.read_text().strip() if path.exists() else None

    def forget_ticket(self) -> None:
        (self._folder / "ticket").unlink(missing_ok=True)

    def save_control(self, port: int, token: str) -> None:
        self._write(self._folder / "control", f"{port} {token}")

    def control(self) -> tuple[int, str] | None:
        """Port and token of the node that runs, or of one that was killed."""
        with contextlib.suppress(OSError, ValueError):
            port, token = (self._folder / "control").read_text().split()
            return int(port), token
        return None

    def forget_control(self) -> None:
        (self._folder / "control").unlink(missing_ok=True)

    def save_peers(self, peers: list[Address], secret: bytes | None) -> None:
        if peers:
            self._write(self._folder / "peers", str(Ticket(tuple(peers[:MAX_BOOTSTRAP]), secret=secret)))

    def peers(self, secret: bytes | None, now: float) -> tuple[Address, ...]:
        """Peers of this swarm seen last time; none where the file is of another swarm, or not readable."""
        try:
            ticket = parse_ticket((self._folder / "peers").read_text(), now)
        except (OSError, UnicodeDecodeError, ShoalError):
            return ()
        return ticket.bootstrap if ticket.secret == secret else ()

    def _write(self, path: Path, text: str) -> None:
        """Whole or not at all, and for the owner only."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
