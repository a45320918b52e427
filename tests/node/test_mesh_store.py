"""The swarm's store at a node: what one peer serves is known to another, and is still known after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shoal.core.clock import SystemClock
from shoal.core.service import ModelCard
from shoal.crypto.keys import PrivateKey
from shoal.node.mesh_parts import Parts, Place, mesh_parts
from shoal.node.mesh_store import MeshStore

SECRET = bytes(range(32))


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[tuple[Parts, MeshStore]]:
    folder.mkdir(exist_ok=True)
    place = Place(PrivateKey(folder.name.encode().ljust(32, b"x")), "127.0.0.1", 0, secret=SECRET)
    async with mesh_parts(place, SystemClock()) as parts:
        store = MeshStore(parts, folder, SystemClock())
        parts.switchboard.start()
        await store.load()
        try:
            yield parts, store
        finally:
            store.close()


def test_offers_travel_and_outlive_everybody(tmp_path: Path) -> None:
    async def work() -> None:
        async with node(tmp_path / "a") as (seller, shop), node(tmp_path / "b") as (buyer, store):
            await shop.publish([ModelCard("rare", context_length=99)], 0.25)
            buyer.switchboard.learn(seller.switchboard.address(), "test")
            await buyer.switchboard.link(seller.me)
            await store.greet()
            assert store.sellers("rare") == [seller.me]
            assert store.sellers("common") == shop.sellers("rare") == []
        async with node(tmp_path / "b") as (_, store):
            assert store.sellers("rare") == [seller.me]

    asyncio.run(work())
    assert len(list((tmp_path / "b").glob("store-*.sqlite"))) == 1
