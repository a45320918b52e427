"""Multicast sockets: one for each interface and family, shared with other nodes of this machine.

IPv4 group 239.83.72.76 (RFC 2365, organisation-local, sent with TTL 1), IPv6 group ff12::5348:4f41:4c (RFC 4291,
transient, link-local). Every socket is bound to the group where the system allows it, so that no unicast reaches it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import ifaddr

GROUP_4 = "239.83.72.76"
GROUP_6 = "ff12::5348:4f41:4c"
PORT = 48_727
_IP_MULTICAST_ALL = 49  # linux/in.h: 0 = only groups this socket joined, on the interface it joined them


@dataclass(frozen=True, slots=True)
class Interface:
    """One family of one network interface. `ip` is its address; `index` names it to the system."""

    name: str
    index: int
    ip: str

    @property
    def is_v6(self) -> bool:
        return ":" in self.ip

    @property
    def is_loopback(self) -> bool:
        return self.ip == "::1" or self.ip.startswith("127.")

    @property
    def label(self) -> str:
        return f"{self.name} ({'IPv6' if self.is_v6 else 'IPv4'} {self.ip})"


def interfaces() -> tuple[Interface, ...]:
    """Each family of each interface once; loopback only where there is nothing else."""
    found: dict[tuple[str, bool], Interface] = {}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            interface = Interface(adapter.nice_name, adapter.index or 0, text)
            found.setdefault((adapter.name, interface.is_v6), interface)
    outside = [one for one in found.values() if not one.is_loopback]
    return tuple(outside or found.values())


def opened(interface: Interface, port: int = PORT) -> socket.socket:
    """A socket that sends to and hears the group on this interface. OSError where the system refuses."""
    sock = socket.socket(socket.AF_INET6 if interface.is_v6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if interface.is_v6:
            _join_6(sock, interface, port)
        else:
            _join_4(sock, interface, port)
    except OSError:
        sock.close()
        raise
    return sock


def destination(interface: Interface, port: int = PORT) -> tuple[str, int] | tuple[str, int, int, int]:
    return (GROUP_6, port, 0, interface.index) if interface.is_v6 else (GROUP_4, port)


def why(error: OSError, interface: Interface) -> str:
    """A refusal in words, with what to do."""
    advice = "this network carries no multicast; give its peers a ticket or an address instead"
    if error.errno in (1, 13):
        advice = "the system forbids it to this program; allow it, or use a ticket"
    return f"LAN discovery is off on {interface.label}: {error.strerror or error}; {advice}"


def hears_nothing(labels: Iterable[str], port: int) -> str:
    return (
        f"LAN discovery sends but does not hear itself on {', '.join(labels)}: "
        f"a firewall drops UDP port {port}; open it for {GROUP_4} and {GROUP_6}"
    )


def _join_4(sock: socket.socket, interface: Interface, port: int) -> None:
    here = socket.inet_aton(interface.ip)
    sock.bind(("" if sys.platform == "win32" else GROUP_4, port))
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP_4) + here)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)


def _join_6(sock: socket.socket, interface: Interface, port: int) -> None:
    index = interface.index.to_bytes(4, sys.byteorder)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("" if sys.platform == "win32" else GROUP_6, port, 0, interface.index))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, GROUP_6) + index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
