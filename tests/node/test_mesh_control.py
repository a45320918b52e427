"""A download handed to the node that runs: seen there while it lasts, ended there exactly once, whoever goes away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shoal.core.clock import SystemClock
from shoal.core.errors import ShoalError, Unavailable
from shoal.mesh.content import Job, Library, Shared, Transfers, manifest_of
from shoal.mesh.fakes import LocalMesh
from shoal.models.store import Store
from shoal.node import mesh_control
from shoal.node.config import NodeConfig
from shoal.node.mesh_control import Control, hand_over
from shoal.node.mesh_home import MeshHome
from shoal.node.mesh_search import Wish, arriving
from shoal.node.model_shelf import FIND, ModelFile, found_bytes

WISH = Wish("m", "")
DATA = random.Random(1).randbytes(3_000_000)


class Scene:
    """A node with a home, and a seller of "m" that gives `bytes_per_s`."""

    def __init__(self, folder: Path, bytes_per_s: float) -> None:
        path = folder / "sold"
        path.write_bytes(DATA)
        self.clock, manifest = SystemClock(), manifest_of(path)
        mesh = LocalMesh(self.clock)
        me, seller = mesh.join(), mesh.join()
        self.library = Library(self.clock, bytes_per_s, transfers=Transfers(self.clock))
        self.library.share(Shared(path, manifest, name="m"))
        self.library.register(seller)

        async def find(incoming: Any, body: memoryview) -> bytes:
            return found_bytes([ModelFile("m", manifest.id, len(DATA), "aa", "m.gguf")])

        seller.unary(FIND, find)
        self.home, self.store, self.transfers = MeshHome(folder), Store(folder), Transfers(self.clock)
        report = SimpleNamespace(peer=seller.peer, link=object())
        parts: Any = SimpleNamespace(
            me=me.peer,
            rpc=me,
            clock=self.clock,
            switchboard=SimpleNamespace(snapshot=lambda: [report], learn=lambda *_: None),
            gossip=SimpleNamespace(members=tuple),
            dht=SimpleNamespace(providers=nobody, bootstrap=nobody),
        )
        self.control = Control(NodeConfig(folder), parts, self.transfers)
        arriving(self.store, "m").parent.mkdir(parents=True)

    @asynccontextmanager
    async def pulling(self) -> AsyncIterator[asyncio.Task[Any]]:
        """A download in the middle."""
        begun = asyncio.Event()
        job = Job(b"", arriving(self.store, "m"), "m", on_bytes=lambda done, size: begun.set())
        task = asyncio.create_task(hand_over(self.home, WISH, job, ()))
        await asyncio.wait((task, asyncio.create_task(begun.wait())), return_when=asyncio.FIRST_COMPLETED)
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def nobody(*_: Any) -> list[Any]:
    return []


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_what_is_handed_over_arrives_and_both_sides_show_it(tmp_path: Path) -> None:
    async def scene() -> None:
        here = Scene(tmp_path, 100e6)
        async with here.control.open(here.home), here.pulling() as task:
            assert (await task).name == "m"
            assert arriving(here.store, "m").read_bytes() == DATA
        assert here.transfers.ended == {("down", "done"): 1}
        assert here.library.transfers is not None
        assert here.library.transfers.ended == {("up", "done"): 1}
        assert here.home.control() is None
        assert await hand_over(here.home, WISH, Job(b"", tmp_path / "x"), ()) is None, "no node runs any more"

    run(scene())


def test_hanging_up_cancels_and_what_came_stays(tmp_path: Path) -> None:
    async def scene() -> None:
        here = Scene(tmp_path, 1e6)
        async with here.control.open(here.home):
            async with here.pulling():
                (view,) = here.transfers.views()
                assert (view.outcome, view.num_peers) == ("", 1)
                assert 0 < view.done_bytes < len(DATA)
            while not here.transfers.ended:
                await asyncio.sleep(0)
        assert here.transfers.ended == {("down", "cancelled"): 1}
        assert arriving(here.store, "m").with_name("weights.part").exists()

    run(scene())


def test_a_node_that_stops_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        here = Scene(tmp_path, 1e6)
        control = here.control.open(here.home)
        await control.__aenter__()
        async with here.pulling() as task:
            await control.__aexit__(None, None, None)
            with pytest.raises(Unavailable, match="stopped; run it again: what came is kept"):
                await task
        assert here.transfers.ended == {("down", "cancelled"): 1}

    run(scene())


def test_without_the_token_nothing_is_done_and_a_crowd_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_control, "MAX_CONNECTIONS", 2)

    async def scene() -> None:
        here = Scene(tmp_path, 1e6)
        async with here.control.open(here.home):
            port, token = here.home.control() or (0, "")
            assert (len(token), (tmp_path / "mesh" / "control").stat().st_mode & 0o77) == (32, 0)
            for line in (b'{"token": "no"}\n', b"\n", b"[]\n", b'{"token": null}\n', b"x" * 100_000 + b"\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(line)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
                writer.close()
            crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await crowd[2][0].readexactly(1)
            for _, writer in crowd:
                writer.close()
            for name in ("../../x", "/etc/x", ""):
                with pytest.raises((ShoalError, OSError)):
                    await hand_over(here.home, WISH, Job(b"", tmp_path / "x", name), ())
        assert not here.transfers.ended
        assert not (tmp_path / "mesh" / "control").exists()

    run(scene())
