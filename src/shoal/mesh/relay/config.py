"""What a relay's operator decides."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.errors import BadConfig
from shoal.mesh.peer_id import PeerId

MAX_PACKET_BYTES = 64 * 1024
"""Payload of one frame: MAX_PACKET_SIZE of iroh-relay."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What one client, and all of them, may use.

    clients          connections at once, those still shaking hands included.
    per_address      connections from one IPv4 address or IPv6 /64.
    knocking         connections beyond these two that have not said what they want; more are cut off unheard.
    handshake_s      from the TCP connection to the proven key.
    bytes_per_s      datagram bytes one client may send, with bursts of two seconds' worth.
    frames_per_s     the same for frames, pings included.
    queue_frames     frames that wait for a slow client; more are dropped, as a router does. QUIC recovers.
    queue_bytes      the same in bytes.
    all_queues_bytes the same for all slow clients together.
    idle_s           without a frame for so long, a client is taken for gone (clients ping every 15 s).
    contacts         peers that are told when one client goes.
    """

    clients: int = 2048
    per_address: int = 128
    knocking: int = 64
    handshake_s: float = 10.0
    bytes_per_s: float = 32e6
    frames_per_s: float = 20_000.0
    queue_frames: int = 512
    queue_bytes: int = 8 * 2**20
    all_queues_bytes: int = 256 * 2**20
    idle_s: float = 60.0
    contacts: int = 1024


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Where a relay listens and whom it serves.

    port         0: any free one, see `RelayServer.url`.
    allow        peer ids that may use it; None: everybody who proves a key.
    auth_token   a bearer token every client must send; None: none.
    certificate  PEM file with the certificate and its chain; with `private_key` the relay speaks https only. The quic
                 carrier trusts certificates of public authorities only; a self-signed one is refused by it.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a relay serves the network
    port: int = 3340
    allow: frozenset[PeerId] | None = None
    auth_token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    private_key: Path | None = None
    limits: RelayLimits = RelayLimits()

    def tls(self) -> ssl.SSLContext | None:
        """The server's TLS, None for plain http. BadConfig for a certificate that cannot be used."""
        if self.certificate is None:
            if self.private_key is not None:
                raise BadConfig("private_key", "given without a certificate; give both or neither")
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            raise BadConfig("certificate", f"{self.certificate} cannot be used: {error}") from error
        return context
