"""How a link reaches its peer, from what the library can know.

The first path of a connection (id "0") carried the handshake. Two facts decide:
- relayed  the path in use goes through a relay;
- direct   the path in use is IP, and so was the first one: an address answered a stranger's packet. Also any path to a
           private, link-local or loopback address: no NAT lies between;
- punched  the path in use is IP, but the handshake needed a helper: it came through a relay, or a common peer told
           both sides to dial at the same time.

What cannot be known: whether an address reached by punching would also have answered by itself when the relay's copy
of the first packet was merely faster (it says punched), or whether a provider put a NAT between two homes with private
addresses (it says direct). Both ends see the same first path and say the same.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from shoal.mesh.carrier import Path

HANDSHAKE_PATH = "0"

HOME_NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193; not 100.64.0.0/10, where a provider's NAT lies between customers."""


@dataclass(frozen=True, slots=True)
class Route:
    """One open path of a connection. `rtt_ms` is whole milliseconds, 0 below one."""

    id: str
    remote: str
    is_relay: bool
    is_selected: bool
    rtt_ms: int


def selected(routes: tuple[Route, ...]) -> Route | None:
    """The route in use; before one is chosen the first; None where there is none."""
    return next((route for route in routes if route.is_selected), routes[0] if routes else None)


def was_helped(routes: tuple[Route, ...]) -> bool:
    """Whether the handshake came through a relay; asked right after it, while its path is still there."""
    return any(route.id == HANDSHAKE_PATH and route.is_relay for route in routes)


def kind(route: Route, is_helped: bool) -> Path:
    if route.is_relay:
        return "relayed"
    return "punched" if is_helped and not is_local(route.remote) else "direct"


def is_local(endpoint: str) -> bool:
    """Whether "ip:port" lies in a network that needs no NAT between its machines. False for anything else."""
    try:
        ip = ipaddress.ip_address(endpoint.rsplit(":", 1)[0].strip("[]").split("%")[0])
    except ValueError:
        return False
    return ip.is_loopback or ip.is_link_local or any(ip in network for network in HOME_NETWORKS)
