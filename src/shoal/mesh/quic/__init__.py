"""The carrier over QUIC: direct where an address answers, hole punching between NATs, relays where nothing else goes.

The packets are iroh's (https://docs.rs/iroh, 1.2.0): its endpoint id is our peer id, its TLS proves it. Relays and
address observers are ours (`mesh.relay`, `mesh.nat`); no server of anybody else is contacted.

Files here:
binding     loads the library, or says what to use instead.
fast_bytes  one copy instead of a loop for every byte handed to the library.
failures    the library's errors as ours.
stream      one QUIC stream: two small buffers and their pumps.
inbox       what has arrived and was not yet accepted, bounded.
path        how a link reaches its peer: direct, punched or relayed.
link        one QUIC connection.
dial        from address hints to attempts, in order.
carrier     the endpoint: dials, accepts, knows its addresses.

What this does not protect against: a relay or observer learns who talks to whom, when, and how much; whoever knows a
UDP address can cost handshakes (their number is bounded, addresses are validated under load).
"""

from shoal.mesh.quic.carrier import QuicCarrier, QuicConfig

__all__ = ["QuicCarrier", "QuicConfig"]
