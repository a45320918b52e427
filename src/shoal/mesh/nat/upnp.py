"""UPnP IGD (WANIPConnection 1 and 2): ask the router for an outside UDP port. Parsing is pure; see `map_port`.

Everything is asked of the default gateway alone: an answer from, or a location at, another address is ignored, so that
nobody on the network can make this node send requests anywhere else.
"""

from __future__ import annotations

import asyncio
import html
import re
import socket
from collections.abc import Mapping as Pairs
from dataclasses import dataclass
from ipaddress import IPv4Address
from urllib.parse import urljoin, urlsplit

from shoal.core.errors import PeerFault, Unreachable
from shoal.mesh.nat.natpmp import Mapping

GROUP, PORT = "239.255.255.250", 1900
TARGETS = ("urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2")
DISCOVER_S = 2.5
HTTP_S = 5.0
MAX_BODY = 256 * 1024
ONLY_PERMANENT, CONFLICT = 725, 718
_SERVICE = re.compile(r"<service>(.*?)</service>", re.DOTALL)
_TYPE = re.compile(r"<serviceType>\s*(urn:schemas-upnp-org:service:WAN(?:IP|PPP)Connection:[12])\s*</serviceType>")
_CONTROL = re.compile(r"<controlURL>\s*([^<]{1,500}?)\s*</controlURL>")
_ERROR = re.compile(r"<errorCode>\s*(\d{1,5})\s*</errorCode>")
_ADDRESS = re.compile(r"<NewExternalIPAddress>\s*([0-9.]{7,15})\s*</NewExternalIPAddress>")


@dataclass(frozen=True, slots=True)
class Control:
    """Where the router's port mappings are managed, and by which version of the service."""

    url: str
    service: str


class Refused(PeerFault):
    """The router answered with a UPnP error; `number` is its code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"upnp: the router refused with error {number}")
        self.number = number


def search(target: str) -> bytes:
    """An M-SEARCH (UPnP Device Architecture 1.1, section 1.3.2)."""
    lines = ("M-SEARCH * HTTP/1.1", f"HOST: {GROUP}:{PORT}", 'MAN: "ssdp:discover"', "MX: 1", f"ST: {target}", "", "")
    return "\r\n".join(lines).encode()


def parse_location(data: bytes, gateway: str) -> str | None:
    """The description's URL in a search response; None for anything else, or if it is not at the gateway."""
    text = data[:4096].decode("latin-1")
    found = re.search(r"^location:\s*(\S{1,500})\s*$", text, re.IGNORECASE | re.MULTILINE)
    if not text.startswith("HTTP/1.1 200") or found is None:
        return None
    return found[1] if is_at(found[1], gateway) else None


def is_at(url: str, gateway: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname == gateway
    except ValueError:
        return False


def parse_description(text: str, location: str, gateway: str) -> Control:
    """The first WAN connection service of a device description. PeerFault where there is none at the gateway."""
    for service in _SERVICE.findall(text):
        kind, control = _TYPE.search(service), _CONTROL.search(service)
        if kind is not None and control is not None:
            url = urljoin(location, html.unescape(control[1]))
            if is_at(url, gateway):
                return Control(url, kind[1])
    raise PeerFault("upnp: the router offers no WAN connection service")


def envelope(service: str, action: str, arguments: Pairs[str, str]) -> str:
    """A SOAP 1.1 body."""
    inner = "".join(f"<{name}>{html.escape(value)}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service}">{inner}</u:{action}></s:Body></s:Envelope>'
    )


def parse_outside(text: str) -> str:
    """The router's outside IPv4 address. PeerFault for anything else."""
    found = _ADDRESS.search(text)
    try:
        address = IPv4Address(found[1] if found else "")
    except ValueError:
        raise PeerFault("upnp: expected the router's outside address") from None
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise PeerFault(f"upnp: the router has no address outside: it says {address}")
    return str(address)


async def map_port(gateway: str, internal_port: int, lifetime_s: int = 3600) -> Mapping:
    """A mapping of a UDP port. Unreachable where no router answers, PeerFault where it refuses."""
    control = await find(gateway)
    outside = parse_outside(await _call(control, "GetExternalIPAddress", {}))
    for port in (internal_port, *(1024 + (internal_port * 7919 + number) % 60_000 for number in range(1, 4))):
        try:
            return Mapping(
                f"{outside}:{port}", internal_port, await _add(control, gateway, internal_port, port, lifetime_s)
            )
        except Refused as error:
            if error.number != CONFLICT:
                raise
    raise Refused(CONFLICT)


async def unmap_port(gateway: str, external_port: int) -> None:
    """Take the mapping back, as a node does when it stops."""
    await _call(await find(gateway), "DeletePortMapping", _place(external_port))


async def find(gateway: str) -> Control:
    """The gateway's control point. Unreachable where it does not answer a search."""
    location = await _location(gateway)
    return parse_description(await _http("GET", location, None, {}), location, gateway)


async def _add(control: Control, gateway: str, internal: int, external: int, lifetime_s: int) -> int:
    """The lifetime the router gave: 0 becomes a day, for routers that know only mappings without end."""
    arguments = _place(external) | {
        "NewInternalPort": str(internal),
        "NewInternalClient": _own_address(gateway),
        "NewEnabled": "1",
        "NewPortMappingDescription": "shoal",
        "NewLeaseDuration": str(lifetime_s),
    }
    try:
        await _call(control, "AddPortMapping", arguments)
    except Refused as error:
        if error.number != ONLY_PERMANENT:
            raise
        await _call(control, "AddPortMapping", arguments | {"NewLeaseDuration": "0"})
        return 24 * 3600
    return lifetime_s


def _place(external: int) -> dict[str, str]:
    return {"NewRemoteHost": "", "NewExternalPort": str(external), "NewProtocol": "UDP"}


def _own_address(gateway: str) -> str:
    """This machine's address on the way to the gateway; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((gateway, PORT))
        return str(probe.getsockname()[0])


class _Search(asyncio.DatagramProtocol):
    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.location: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        location = parse_location(data, self.gateway) if addr[0] == self.gateway else None
        if location is not None and not self.location.done():
            self.location.set_result(location)


async def _location(gateway: str) -> str:
    loop = asyncio.get_running_loop()
    try:
        transport, found = await loop.create_datagram_endpoint(
            lambda: _Search(gateway), local_addr=(_own_address(gateway), 0)
        )
    except OSError as error:
        raise Unreachable(f"upnp: no way to {gateway} ({error})") from error
    try:
        for target in TARGETS:
            transport.sendto(search(target), (GROUP, PORT))
            transport.sendto(search(target), (gateway, PORT))
        async with asyncio.timeout(DISCOVER_S):
            return await found.location
    except TimeoutError:
        raise Unreachable(f"upnp: {gateway} did not answer a search") from None
    finally:
        transport.close()


async def _call(control: Control, action: str, arguments: Pairs[str, str]) -> str:
    headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{control.service}#{action}"'}
    return await _http("POST", control.url, envelope(control.service, action, arguments), headers)


async def _http(method: str, url: str, body: str | None, headers: Pairs[str, str]) -> str:
    """The text of an answer, MAX_BODY at most. Refused for a UPnP error, Unreachable or PeerFault otherwise."""
    import httpx

    chunks: list[bytes] = []
    try:
        async with (
            httpx.AsyncClient(timeout=HTTP_S, trust_env=False, follow_redirects=False) as client,
            client.stream(method, url, content=body, headers=dict(headers)) as response,
        ):
            async for chunk in response.aiter_bytes():
                chunks.append(chunk)
                if sum(map(len, chunks)) > MAX_BODY:
                    raise PeerFault(f"upnp: expected at most {MAX_BODY} bytes from the router")
    except httpx.HTTPError as error:
        raise Unreachable(f"upnp: {url}: {type(error).__name__}") from error
    text = b"".join(chunks).decode("utf-8", "replace")
    if response.status_code != 200:
        found = _ERROR.search(text)
        raise Refused(int(found[1])) if found else PeerFault(f"upnp: the router answered {response.status_code}")
    return text
