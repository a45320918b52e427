"""The swarm's store at a node: what one peer serves is known to another, and is still known after a restart."""

from __future__ import annotations

import asyncio
import contextlib
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
async def node(folder: Path, *cards: ModelCard) -> AsyncIterator[tuple[Parts, MeshStore]]:
    folder.mkdir(exist_ok=True)
    place = Place(PrivateKey(folder.name.encode().ljust(32, b"x")), "127.0.0.1", 0, secret=SECRET)
    async with mesh_parts(place, SystemClock()) as parts:
        store = MeshStore(parts, folder, SystemClock())
        parts.switchboard.start()
        running = asyncio.create_task(store.run(lambda: cards, 0.25))
        try:
            yield parts, store
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def sold(store: MeshStore, model: str) -> list[object]:
    async with asyncio.timeout(30):
        while not (found := store.sellers(model)):
            await asyncio.sleep(0)
    return list(found)


def test_offers_travel_and_outlive_everybody(tmp_path: Path) -> None:
    async def work() -> None:
        card = ModelCard("rare", context_length=99)
        async with node(tmp_path / "a", card) as (seller, _), node(tmp_path / "b") as (buyer, store):
            buyer.switchboard.learn(seller.switchboard.address(), "test")
            await buyer.switchboard.link(seller.me)
            assert await sold(store, "rare") == [seller.me]
            assert store.sellers("common") == []
        async with node(tmp_path / "b") as (_, store):
            assert await sold(store, "rare") == [seller.me]

    asyncio.run(work())
    assert len(list((tmp_path / "b").glob("store-*.sqlite"))) == 1
