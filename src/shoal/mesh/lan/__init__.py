"""Peers on the same network find each other by multicast, without a server, an internet or a ticket.

announcement  the signed datagram and its swarm tag     beacon     when to speak, whom to believe: pure
sockets       multicast on each interface               discovery  `Lan`: the loop; `problems()` says why it cannot work

What this does not do: cross a router; work where a network isolates its clients (guest Wi-Fi), which nobody can tell
from an empty network. What it does not protect: see `announcement`.
"""

from shoal.mesh.lan.announcement import Ports
from shoal.mesh.lan.discovery import Lan, Surroundings
from shoal.mesh.lan.sockets import Interface

__all__ = ["Interface", "Lan", "Ports", "Surroundings"]
