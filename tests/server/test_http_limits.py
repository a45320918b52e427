"""A head without end once grew in memory without end (100 MB were answered with 200), before any key was checked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from shoal.server.http_limits import MAX_HEAD_BYTES

pytestmark = pytest.mark.real
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def connection(start: Callable[..., Any]) -> Iterator[socket.socket]:
    address = urlsplit(start().url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connected:
        yield connected


def send_until_refused(connection: socket.socket, piece: bytes) -> bytes:
    """The server's answer to HEAD and up to 64 times the limit of `piece`s."""
    try:
        connection.sendall(HEAD)
        for _ in range(64 * MAX_HEAD_BYTES // len(piece)):
            connection.sendall(piece)
    except OSError:  # closed while we were sending, as it should be
        return b""
    return connection.recv(200)


@pytest.mark.parametrize("piece", [b"X: " + b"a" * 60_000, b"X-Many: a\r\n" * 500])
def test_a_head_without_end_is_cut_off(connection: socket.socket, piece: bytes) -> None:
    assert send_until_refused(connection, piece)[:12] in (b"", b"HTTP/1.1 400")


def test_a_large_head_and_a_larger_body_are_served_on_one_connection(start: Callable[..., Any]) -> None:
    message = {"role": "user", "content": "a" * (4 * MAX_HEAD_BYTES)}
    with httpx.Client(base_url=start().url, headers={"x-filler": "a" * (MAX_HEAD_BYTES // 2)}) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
            answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": [message]})
            assert answer.status_code == 200
