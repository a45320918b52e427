"""A relay of our own: where two peers cannot reach each other, it hands their sealed packets across.

It speaks the public wire protocol iroh-relay v1 and v2 (WebSocket, https://docs.rs/iroh-relay), so the quic carrier
needs nothing else. Two relays or more make a mesh that outlives either; `mesh.quic` fails over.

Files here:
frames   the wire: untrusted bytes to typed frames and back.
core     who gets what: `(state, frame, now) -> actions`, no sockets, no time of its own.
config   what an operator decides, the limits and the defaults.
server   a thin shell of WebSockets around the core.

It cannot read the traffic: what it forwards are QUIC packets between two endpoints whose TLS 1.3 handshake proves both
keys to each other; the relay has neither key. Changing, replaying or inventing a packet makes QUIC drop it.

What this does not protect against: the relay's operator sees which peer ids talk, from which addresses, when and how
much, and may drop or delay any of it. Without TLS (`http://`) whoever sits on the way to the relay sees the same.
A client with many keys gets many times one client's share, unless `allow` or a token says who may come.
"""

from shoal.mesh.relay.config import RelayConfig, RelayLimits
from shoal.mesh.relay.core import RelayStats
from shoal.mesh.relay.server import RelayServer, serve_relay

__all__ = ["RelayConfig", "RelayLimits", "RelayServer", "RelayStats", "serve_relay"]
