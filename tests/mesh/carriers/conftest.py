"""The carriers under the contract's tests: each entry makes two that may reach each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from shoal.core.clock import SystemClock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.carrier import Carrier
from shoal.mesh.memory import MemoryCarrier, Network
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.tcp import TcpOptions, listen_tcp

Pair = Callable[[], AbstractAsyncContextManager[tuple[Carrier, Carrier]]]


def key(number: int) -> PrivateKey:
    return PrivateKey(bytes([number]) * 32)


def peer(number: int) -> PeerId:
    return PeerId(key(number).public)


@asynccontextmanager
async def memory() -> AsyncIterator[tuple[Carrier, Carrier]]:
    network = Network(SystemClock())
    one = MemoryCarrier(network, network.host("one"), peer(1))
    other = MemoryCarrier(network, network.host("other"), peer(2))
    yield one, other
    await one.close()
    await other.close()


@asynccontextmanager
async def tcp() -> AsyncIterator[tuple[Carrier, Carrier]]:
    options = TcpOptions(listen=("127.0.0.1:0",))
    one, other = await listen_tcp(key(1), options), await listen_tcp(key(2), options)
    yield one, other
    await one.close()
    await other.close()


@asynccontextmanager
async def quic() -> AsyncIterator[tuple[Carrier, Carrier]]:
    one = await QuicCarrier.start(QuicConfig(key(1), bind="127.0.0.1:0"))
    other = await QuicCarrier.start(QuicConfig(key(2), bind="127.0.0.1:0"))
    yield one, other
    await one.close()
    await other.close()


PAIRS: dict[str, Pair] = {"quic": quic, "memory": memory, "tcp": tcp}


@pytest.fixture(params=sorted(PAIRS))
def pair(request: pytest.FixtureRequest) -> Pair:
    return PAIRS[request.param]
