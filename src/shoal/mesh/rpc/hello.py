"""The first bytes of a link: which version both speak, what each can do and bears, and, in a private swarm, proof that
both know its secret. No I/O: bytes in, bytes out.

    dialer -> HELLO      {"p": "shoal", "v": [low, high], "a": agent, "f": features, "n": nonce, "c": calls,
                          "s": streams, "w": window, "x": is private}
    HELLO <- listener
    dialer -> PROOF      private swarms only; {"m": HMAC-SHA256(secret, role, both ids, both nonces, both hellos)}
    PROOF <- listener    only after the dialer's was right
    either -> REFUSAL    {"no": "version" | "swarm"} instead of its next message

Each is a u16 length and that many bytes of canonical CBOR (`core.encoding`).

Rules that stay true in this file:
- a listener proves nothing to a dialer that has not proven itself, and both roles hash different bytes, so neither a
  reflected nor a replayed proof fits;
- a wrong secret and a public peer give the same reason, and no more;
- what arrives becomes a typed value or PeerFault, from at most MAX_HELLO bytes a message.

What this does not protect against: a listener sees one HMAC of whoever dials it, so a secret that can be guessed can be
guessed offline: it must be SECRET_BYTES random bytes. Agent and versions are visible to whoever connects.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, Literal

from shoal.core.encoding import decode, encode
from shoal.core.errors import PeerFault, RemoteError, ShoalError, Unauthorized, Unsupported
from shoal.core.text import is_plain
from shoal.mesh.peer_id import PeerId

VERSIONS = (1, 1)
"""Lowest and highest version of the protocol above the hello that this build speaks."""

MAX_HELLO = 2048
NONCE_BYTES = 32
SECRET_BYTES = 32
MAX_COUNT = 2**32 - 1

Refusal = Literal["version", "swarm"]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a side says of itself. Limits are what it bears of the other; see `Limits`."""

    agent: str
    nonce: bytes
    versions: tuple[int, int] = VERSIONS
    features: tuple[str, ...] = ()
    calls: int = 1024
    streams: int = 128
    window: int = 2**20
    is_private: bool = False

    def encoded(self) -> bytes:
        return encode({"p": "shoal", "v": self.versions, "a": self.agent, "f": self.features, "n": self.nonce,
                       "c": self.calls, "s": self.streams, "w": self.window, "x": self.is_private})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Agreed:
    """What two hellos came to. `rest` are the first bytes after them."""

    version: int
    theirs: Hello
    rest: bytes


def parse_hello(data: bytes) -> Hello:
    """The hello in one message."""
    match _decoded(data):
        case {"p": "shoal", "v": [int(low), int(high)], "a": str(agent), "f": list(features), "n": bytes(nonce),
              "c": int(calls), "s": int(streams), "w": int(window), "x": bool(is_private)}:  # fmt: skip
            counts = (low, high, calls, streams, window)
            is_sound = (
                low <= high and all(type(n) is int and 0 <= n <= MAX_COUNT for n in counts)
                and len(nonce) == NONCE_BYTES and len(agent) <= 100 and is_plain(agent)
                and all(isinstance(item, str) for item in features)
            )  # fmt: skip
            if is_sound:
                return Hello(agent, nonce, (low, high), tuple(features), calls, streams, window, is_private)
    raise PeerFault(f"expected a hello, found {len(data)} bytes that are none; is this a Shoal peer?")


def parse_proof(data: bytes) -> bytes:
    """The proof in one message; the error of a refusal."""
    match _decoded(data):
        case {"m": bytes(mac)}:
            return mac
        case {"no": "version" | "swarm" as why}:
            raise _refused(why, None)
    raise PeerFault(f"expected a proof of the swarm's secret, found {len(data)} bytes that are none")


@dataclass(slots=True)
class Handshake:
    """One side of a hello. `start` gives the first bytes to send, `receive` the answers to what came; then either
    `agreed` or `refused` (the error to raise once those bytes are sent) is set.
    """

    me: PeerId
    peer: PeerId
    mine: Hello
    is_dialer: bool
    secret: bytes | None = None
    agreed: Agreed | None = None
    refused: ShoalError | None = None
    _theirs: Hello | None = None
    _their_bytes: bytes = b""
    _buffer: bytes = field(default=b"", repr=False)

    def start(self) -> bytes:
        return _message(self.mine.encoded()) if self.is_dialer else b""

    def receive(self, data: bytes) -> bytes:
        """PeerFault for bytes that mean nothing; Unsupported or Unauthorized where the other side refused."""
        self._buffer += data
        out = b""
        while self.agreed is None and self.refused is None and (message := self._next()) is not None:
            out += self._on_hello(message) if self._theirs is None else self._on_proof(parse_proof(message))
        if self.agreed is not None:
            self.agreed = Agreed(self.agreed.version, self.agreed.theirs, self._buffer)
        return out

    def _next(self) -> bytes | None:
        size = int.from_bytes(self._buffer[:2], "little")
        if size > MAX_HELLO:
            raise PeerFault(f"expected a hello of at most {MAX_HELLO} bytes, found {size}; is this a Shoal peer?")
        if len(self._buffer) < 2 + size or len(self._buffer) < 2:
            return None
        message, self._buffer = self._buffer[2 : 2 + size], self._buffer[2 + size :]
        return message

    def _on_hello(self, message: bytes) -> bytes:
        match _decoded(message):
            case {"no": "version" | "swarm" as why}:
                raise _refused(why, None)
        self._theirs, self._their_bytes = parse_hello(message), message
        answer = b"" if self.is_dialer else _message(self.mine.encoded())
        if self._version() < max(self.mine.versions[0], self._theirs.versions[0]):
            return answer + self._refuse("version")
        if (self.secret is not None) != self._theirs.is_private:
            return answer + self._refuse("swarm")
        if self.secret is None:
            self._agree()
            return answer
        return _message(encode({"m": self._proof(self.secret, is_dialer=True)})) if self.is_dialer else answer

    def _on_proof(self, mac: bytes) -> bytes:
        assert self.secret is not None
        if not hmac.compare_digest(mac, self._proof(self.secret, not self.is_dialer)):
            return self._refuse("swarm")
        self._agree()
        return b"" if self.is_dialer else _message(encode({"m": self._proof(self.secret, is_dialer=False)}))

    def _proof(self, secret: bytes, is_dialer: bool) -> bytes:
        """The dialer's side of everything first, whoever computes it."""
        sides = [(self.me.key, self.mine.encoded()), (self.peer.key, self._their_bytes)]
        if not self.is_dialer:
            sides.reverse()
        said = encode(["shoal swarm v1", "dialer" if is_dialer else "listener", *sides])
        return hmac.digest(secret, said, "sha256")

    def _version(self) -> int:
        assert self._theirs is not None
        return min(self.mine.versions[1], self._theirs.versions[1])

    def _agree(self) -> None:
        assert self._theirs is not None
        self.agreed = Agreed(self._version(), self._theirs, b"")

    def _refuse(self, why: Refusal) -> bytes:
        self.refused = _refused(why, self)
        return _message(encode({"no": why}))


def _refused(why: Refusal, side: Handshake | None) -> ShoalError:
    if why == "swarm":
        return Unauthorized("this peer is in another swarm or the swarm's key differs")
    if side is None or side._theirs is None:
        return Unsupported("this peer speaks no version of the protocol that we speak; update the older of the two")
    mine, theirs = side.mine.versions, side._theirs.versions
    older = "this peer" if theirs[1] < mine[0] else "this node"
    return Unsupported(
        f"expected a protocol version of {mine[0]} to {mine[1]}, found a peer that speaks {theirs[0]} to {theirs[1]} "
        f"({side._theirs.agent}); update {older}"
    )


def _message(body: bytes) -> bytes:
    return len(body).to_bytes(2, "little") + body


def _decoded(data: bytes) -> Any:
    try:
        return decode(data)
    except RemoteError as error:
        raise PeerFault(f"expected a hello, found bytes that mean nothing: {error}") from error
