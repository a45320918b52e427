"""The relay without sockets: frames in, actions out. The shell sends, closes and tells what has left.

Rules that stay true in this file:
- one connection per key: a second one replaces the first, which is told so;
- memory per client is bounded: queue, contacts, two buckets. What does not fit is dropped and counted;
- a client is only ever sent packets, answers to its own pings, and what the relay itself has to say.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from shoal.mesh.bucket import Bucket
from shoal.mesh.relay import frames
from shoal.mesh.relay.config import RelayLimits

BURST_S = 2.0
"""Seconds of its rate a client that was silent may send at once."""

PAUSED_FRAMES = 100
"""Frames' worth of time that who has sent too many is not listened to."""

Dropped = Literal[
    "receiver not here",
    "receiver too slow",
    "receivers too slow, all together",
    "too many bytes",
    "too many frames",
]


@dataclass(frozen=True, slots=True)
class Send:
    """Hand `data` to session `to`; call `Relay.sent` once it has left."""

    to: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    session: int
    reason: str


Action = Send | Close


@dataclass(frozen=True, slots=True)
class RelayStats:
    """Counts since the start. `dropped` and `refused` are by reason; `clients` is now."""

    clients: int
    forwarded_frames: int
    forwarded_bytes: int
    dropped: dict[str, int]
    refused: dict[str, int]


@dataclass(slots=True)
class Client:
    """One authenticated session. `waiting_*`: handed to the shell and not yet sent."""

    session: int
    key: bytes
    speaks_v2: bool
    bytes_in: Bucket
    frames_in: Bucket
    waiting_frames: int = 0
    waiting_bytes: int = 0
    contacts: dict[bytes, None] = field(default_factory=dict)


class Relay:
    """All sessions of one relay. Times are seconds of any monotonic clock."""

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        self._sessions: dict[int, Client] = {}
        self._by_key: dict[bytes, Client] = {}
        self._frames = self._bytes = self._waiting_bytes = 0
        self._dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def stats(self) -> RelayStats:
        return RelayStats(len(self._by_key), self._frames, self._bytes, dict(self._dropped), dict(self._refused))

    def refused(self, reason: str) -> None:
        """Count somebody who did not get in; `reason` is one of a few constants."""
        self._refused[reason] += 1

    def joined(self, session: int, key: bytes, speaks_v2: bool, now: float) -> list[Action]:
        """A client has proven `key` on a new session."""
        actions = self._replace(self._by_key.get(key))
        limits = self.limits
        bytes_in, frames_in = (Bucket(rate, BURST_S * rate, now) for rate in (limits.bytes_per_s, limits.frames_per_s))
        client = Client(session, key, speaks_v2, bytes_in, frames_in)
        self._sessions[session] = self._by_key[key] = client
        return actions

    def _replace(self, old: Client | None) -> list[Action]:
        if old is None:
            return []
        del self._sessions[old.session], self._by_key[old.key]
        self._waiting_bytes -= old.waiting_bytes
        told: list[Action] = [Send(old.session, frames.SAME_KEY)] if old.speaks_v2 else []
        return [*told, Close(old.session, "the same key has connected again")]

    def received(self, session: int, frame: frames.Frame, now: float) -> list[Action]:
        """A frame from a session; from one that was replaced it is ignored."""
        client = self._sessions.get(session)
        if client is None:
            return []
        if not client.frames_in.take(1, now):
            return self._drop("too many frames")
        match frame:
            case frames.Datagram():
                return self._forward(client, frame, now)
            case frames.Ping():
                return self._hand(client, frames.pong(frame))
            case frames.Pong():
                return []

    def _forward(self, client: Client, sent: frames.Datagram, now: float) -> list[Action]:
        if not client.bytes_in.take(len(sent.rest), now):
            return self._drop("too many bytes")
        receiver = self._by_key.get(sent.to)
        if receiver is None:
            return self._drop("receiver not here")
        if sent.to not in client.contacts:
            if len(client.contacts) >= self.limits.contacts:
                del client.contacts[next(iter(client.contacts))]
            client.contacts[sent.to] = None
        actions = self._hand(receiver, frames.delivery(client.key, sent))
        if actions:
            self._frames += 1
            self._bytes += len(sent.rest)
        return actions

    def _hand(self, client: Client, data: bytes) -> list[Action]:
        limits = self.limits
        if client.waiting_frames >= limits.queue_frames or client.waiting_bytes + len(data) > limits.queue_bytes:
            return self._drop("receiver too slow")
        if self._waiting_bytes + len(data) > limits.all_queues_bytes:
            return self._drop("receivers too slow, all together")
        self._waiting_bytes += len(data)
        client.waiting_frames += 1
        client.waiting_bytes += len(data)
        return [Send(client.session, data)]

    def _drop(self, reason: Dropped) -> list[Action]:
        self._dropped[reason] += 1
        return []

    def sent(self, session: int, size_bytes: int) -> None:
        """The shell has handed a frame of that size to the network."""
        if client := self._sessions.get(session):
            client.waiting_frames -= 1
            client.waiting_bytes -= size_bytes
            self._waiting_bytes -= size_bytes

    def pause_s(self, session: int) -> float:
        """How long to read no more from a session that has used up its frames: its network holds them back then."""
        client = self._sessions.get(session)
        missing = 0.0 if client is None else 1.0 - client.frames_in.tokens
        return PAUSED_FRAMES / self.limits.frames_per_s if missing > 0 else 0.0

    def left(self, session: int) -> list[Action]:
        """A session has ended; those it wrote to learn that its key is gone."""
        client = self._sessions.pop(session, None)
        if client is None:
            return []
        del self._by_key[client.key]
        self._waiting_bytes -= client.waiting_bytes
        told = (self._by_key[key] for key in client.contacts if key in self._by_key)
        return [action for other in told for action in self._hand(other, frames.gone(client.key))]

    def closing(self, reconnect_ms: int, try_ms: int) -> list[Action]:
        """The relay stops: every client is told when to come back."""
        notice = frames.restarting(reconnect_ms, try_ms)
        clients = list(self._sessions.values())
        return [action for client in clients for action in self._hand(client, notice)]
