"""UPnP: what routers answer, parsed; only the gateway is believed. The real thing is in natlab, against miniupnpd."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import PeerFault, Unreachable
from shoal.mesh.nat import upnp

GATEWAY = "127.0.0.1"
DESCRIPTION = """<root><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>{control}</controlURL>
</service></serviceList></device></root>"""


def response(location: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {location}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (response("http://127.0.0.1:5000/root.xml"), "http://127.0.0.1:5000/root.xml"),
        (response("http://10.0.0.9:5000/root.xml"), None),
        (response("https://127.0.0.1/x"), None),
        (response("file:///etc/passwd"), None),
        (response("http://[bad"), None),
        (b"NOTIFY * HTTP/1.1\r\nLOCATION: http://127.0.0.1/\r\n\r\n", None),
        (b"", None),
    ],
)
def test_only_the_gateways_own_description_is_read(data: bytes, found: str | None) -> None:
    assert upnp.parse_location(data, GATEWAY) == found


def test_the_connection_service_is_found_at_the_gateway_only() -> None:
    location = "http://127.0.0.1:5000/root.xml"
    for control in ("/ctl?a=1&amp;b=2", "http://127.0.0.1:5000/ctl?a=1&amp;b=2"):
        found = upnp.parse_description(DESCRIPTION.format(control=control), location, GATEWAY)
        assert found == upnp.Control(
            "http://127.0.0.1:5000/ctl?a=1&b=2", "urn:schemas-upnp-org:service:WANIPConnection:1"
        )
    for control in ("http://10.0.0.9/ctl", "//evil/ctl", ""):
        with pytest.raises(PeerFault, match="no WAN connection"):
            upnp.parse_description(DESCRIPTION.format(control=control), location, GATEWAY)


@given(st.text(max_size=300).filter(lambda text: re.search(r"\d\.\d", text) is None), st.binary(max_size=300))
def test_anything_else_is_the_routers_fault(text: str, data: bytes) -> None:
    assert upnp.parse_location(data, GATEWAY) is None
    with pytest.raises(PeerFault):
        upnp.parse_description(text, "http://127.0.0.1/", GATEWAY)
    with pytest.raises(PeerFault):
        upnp.parse_outside(f"<NewExternalIPAddress>{text}</NewExternalIPAddress>")


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "239.1.2.3"])
def test_a_router_without_an_address_outside_has_none_to_give(address: str) -> None:
    with pytest.raises(PeerFault, match="no address outside"):
        upnp.parse_outside(f"<NewExternalIPAddress>{address}</NewExternalIPAddress>")


class Router:
    """A control point over HTTP; `errors` are answered in turn, then it says yes."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = re.search(r"content-length: (\d+)", head)
        body = (await reader.readexactly(int(size[1]))).decode() if size else ""
        action = re.search(r"<u:(\w+)", body)
        assert action is not None
        fields = "".join(re.findall(r"<New(?:ExternalPort|LeaseDuration)>(\d+)", body))
        status, text = "200 OK", "<NewExternalIPAddress>44.1.2.3</NewExternalIPAddress>"
        if action[1] == "AddPortMapping":
            self.asked.append((action[1], fields))
            if self.errors:
                status, text = "500 Error", f"<errorCode>{self.errors.pop(0)}</errorCode>"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()


def mapped(router: Router, monkeypatch: pytest.MonkeyPatch) -> upnp.Mapping:
    async def work() -> upnp.Mapping:
        server = await asyncio.start_server(router.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def find(gateway: str) -> upnp.Control:
            return upnp.Control(f"http://127.0.0.1:{port}/", "urn:schemas-upnp-org:service:WANIPConnection:1")

        monkeypatch.setattr(upnp, "find", find)
        async with server:
            return await upnp.map_port(GATEWAY, 4000)

    return asyncio.run(work())


def test_a_port_a_taken_port_and_a_router_without_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mapped(Router(), monkeypatch) == upnp.Mapping("44.1.2.3:4000", 4000, 3600)
    taken = Router(upnp.CONFLICT)
    assert mapped(taken, monkeypatch).external != "44.1.2.3:4000"
    assert len(taken.asked) == 2
    endless = Router(upnp.ONLY_PERMANENT)
    assert mapped(endless, monkeypatch) == upnp.Mapping("44.1.2.3:4000", 4000, 24 * 3600)
    assert [fields for _, fields in endless.asked] == ["40003600", "40000"]
    with pytest.raises(upnp.Refused, match="606"):
        mapped(Router(606), monkeypatch)


def test_nobody_answers_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "DISCOVER_S", 0.05)
    with pytest.raises(Unreachable, match="did not answer"):
        asyncio.run(upnp.find(GATEWAY))
