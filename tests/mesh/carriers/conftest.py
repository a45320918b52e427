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


PAIRS: dict[str, Pair] = {"memory": memory}


@pytest.fixture(params=sorted(PAIRS))
def pair(request: pytest.FixtureRequest) -> Pair:
    return PAIRS[request.param]
