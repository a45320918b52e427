"""Endpoints as text: "ip:port" and "[ipv6]:port"."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest

_TEXT = re.compile(r"(?:\[([^\[\]]{2,80})\]|([^:\[\]]{7,15})):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """InvalidRequest for anything but an IP address and a port; names are never looked up."""
        match = _TEXT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            ip = ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(match[2])
        except ValueError:
            raise _wrong(text) from None
        if not 0 <= int(match[3]) < 65_536:
            raise _wrong(text)
        return cls(ip, int(match[3]))

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"

    @property
    def site(self) -> str:
        """Who is counted as one: an IPv4 address, or an IPv6 /64, which one household has to itself."""
        if self.ip.version == 4:
            return str(self.ip)
        return str(ipaddress.ip_network((int(self.ip) >> 64 << 64, 64)))


def of_socket(name: tuple[str | int, ...]) -> Endpoint:
    """From what `getpeername` or `getsockname` gave; a v4 address mapped into v6 is the v4 address."""
    ip = ipaddress.ip_address(str(name[0]))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Endpoint(mapped or ip, int(name[1]))


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(f'expected "ip:port" or "[ipv6]:port", found {text[:80]!r}', "address")
