"""Peers over TCP and TLS 1.3: the fast lane on LANs and public addresses, and where QUIC cannot be had.

endpoint     "ip:port" texts.
certificate  the identity key as a TLS certificate, and how the other side's is read.
hello        how the dialer proves its key inside the channel; versions.
wire         a non-blocking TLS socket.
frames       the bytes of streams on one connection.
stream       the contract's `Stream`: credit and order.
link         the contract's `Link`: one connection, many streams, priorities, keep-alive.
door         how many may knock at once.
dialing      one endpoint, or several one after another, whoever answers first.
carrier      the contract's `Carrier`.

What this does not do: cross NATs (see `quic`), or run on an event loop without `add_reader` (Windows' proactor loop).
"""

from shoal.mesh.tcp.carrier import TcpCarrier, TcpOptions, listen_tcp
from shoal.mesh.tcp.door import DoorLimits

__all__ = ["DoorLimits", "TcpCarrier", "TcpOptions", "listen_tcp"]
