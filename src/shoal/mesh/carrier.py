"""What carries bytes between two peers: a `Carrier` makes `Link`s, a `Link` opens `Stream`s.

Three carriers keep this contract: `quic` (iroh: hole punching and relays), `tcp` (TLS 1.3 on LAN and public addresses)
and `memory` (a simulated network under a virtual clock). One suite of tests runs over all of them.

Rules that stay true for every carrier:
- `link.peer` is proven: the other side holds that key, and nobody between reads or changes a byte;
- bytes of one stream arrive in order, whole and once, or the stream fails; streams do not wait for each other;
- `write` returns when the carrier has room, so a slow reader slows its writer and memory stays bounded;
- after `close`, or when the other side goes away, every pending call on the link and its streams raises `LinkClosed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId

Bytes = bytes | bytearray | memoryview

Path = Literal["direct", "punched", "relayed"]
"""direct: an address that was reachable; punched: both sides opened their NATs at once; relayed: through a relay."""

NO_FAREWELL = "the connection ended without a farewell"
"""How the reason of an ended link begins where the machine at the other end says that the process is gone."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A snapshot of one link. Times are seconds on the carrier's monotonic clock, sizes bytes.

    remote  the other side's address as seen here ("ip:port"), or the relay's URL when relayed.
    rtt_s   smoothed round trip; None before the first measurement.
    """

    carrier: str
    path: Path
    remote: str
    since: float
    is_dialer: bool
    rtt_s: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    lost_packets: int = 0


class Stream(Protocol):
    """One ordered byte stream, both ways."""

    async def write(self, data: Bytes) -> None:
        """Hand over all of `data`; waits for room. The buffer may be reused afterwards."""
        ...

    async def read(self, max_bytes: int) -> bytes:
        """1 to max_bytes bytes as soon as there are any; b"" once the other side has finished."""
        ...

    async def finish(self) -> None:
        """No more bytes from this side; what was written still arrives."""
        ...

    def reset(self) -> None:
        """Give up both directions at once; the other side's calls raise `StreamReset`. Harmless when ended."""
        ...


class Link(Protocol):
    """An authenticated, encrypted connection to one peer. Either side opens streams."""

    @property
    def peer(self) -> PeerId: ...

    def info(self) -> LinkInfo: ...

    async def open(self, priority: int = 0) -> Stream:
        """A new stream. The other side sees it with its first byte. Higher `priority` is sent first."""
        ...

    async def accept(self) -> Stream:
        """The next stream the other side opened. LinkClosed at the end."""
        ...

    async def close(self, reason: str = "") -> None:
        """Close at once; the other side learns `reason` (at most 200 characters). Twice is harmless."""
        ...

    async def closed(self) -> str:
        """Wait until the link has ended; why, in words."""
        ...


class Carrier(Protocol):
    """One way to reach peers, listening and dialing with the node's identity."""

    @property
    def name(self) -> str:
        """ "quic", "tcp" or "memory"."""
        ...

    def address(self) -> Address:
        """Where this carrier may be reached now, as far as it knows."""
        ...

    async def dial(self, address: Address, timeout_s: float) -> Link:
        """A link to `address.peer`. `Unreachable` lists every endpoint tried and why it failed."""
        ...

    async def accept(self) -> Link:
        """The next link somebody dialled, its peer proven. LinkClosed once the carrier is closed."""
        ...

    async def close(self) -> None:
        """Stop listening and close every link. Twice is harmless."""
        ...
