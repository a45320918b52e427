"""Blobs come whole from several peers, whoever dies, lies or is slow; and a new version moves little."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, LocalError, Overloaded, PeerFault, Unavailable
from shoal.mesh.calls import CallOptions
from shoal.mesh.content import Fetcher, Ground, Job, Library, Shared, manifest_of, messages
from shoal.mesh.content.chunker import MAX_BYTES, MIN_BYTES, chunk_sizes
from shoal.mesh.content.fetch import Fetched
from shoal.mesh.content.manifest import manifest, parse_manifest
from shoal.mesh.content.partial import Partial
from shoal.mesh.content.schedule import Schedule
from shoal.mesh.fakes import LocalMesh, LocalPeer, Weather, numbered
from shoal.mesh.peer_id import PeerId


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


BLOB = content(6_000_000)
CALM = Weather((0.01, 0.05))


@pytest.fixture(scope="module")
def blob_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blob") / "blob"
    path.write_bytes(BLOB)
    return path


class Swarm:
    """Seeders of one blob, each with the pieces it is given, and a peer who fetches."""

    def __init__(self, path: Path, held: list[set[int] | None], weather: Weather = CALM) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock, weather=weather)
        self.manifest = manifest_of(path)
        self.seeders = [self.mesh.join() for _ in held]
        self.libraries = [Library(self.clock) for _ in held]
        for local, library, has in zip(self.seeders, self.libraries, held, strict=True):
            library.share(Shared(path, self.manifest, has))
            library.register(local)

    def fetcher(self, library: Library | None = None) -> tuple[Fetcher, LocalPeer]:
        local = self.mesh.join()

        async def providers(blob: bytes) -> list[PeerId]:
            return [seeder.peer for seeder in self.seeders]

        return Fetcher(Ground(local, self.clock, providers, library)), local

    async def timed(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.tick()
        return task.result()

    async def tick(self) -> None:
        await asyncio.to_thread(int)  # a turn of the threads that hash files
        for _ in range(20):
            await asyncio.sleep(0)
        await self.clock.advance(0.05)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """With one thread for files, so that a turn of it means that everything before has been read and written."""

    async def limited() -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await asyncio.wait_for(work, 60)

    return asyncio.run(limited())


# ---- fetching -------------------------------------------------------------------------------------------------


def test_five_seeders_share_the_work_while_one_dies_and_another_comes_late(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        swarm = Swarm(blob_path, [None] * 5)
        swarm.mesh.crash(swarm.seeders[4].peer)
        fetcher, _ = swarm.fetcher()
        progress: list[int] = []
        job = Job(swarm.manifest.id, tmp_path / "got", "b", on_bytes=lambda done, size: progress.append(done))
        task = asyncio.ensure_future(fetcher.fetch(job))
        while len(progress) < 5:
            await swarm.tick()
        (view,) = fetcher.transfers.views()
        assert (view.name, view.size_bytes, view.direction, view.outcome) == ("b", len(BLOB), "down", "")
        assert 0 < view.done_bytes < len(BLOB)
        assert view.rate_bps > 0
        assert set(view.peers) <= {str(seeder.peer) for seeder in swarm.seeders}
        swarm.mesh.crash(swarm.seeders[0].peer)
        swarm.mesh.restore(swarm.seeders[4].peer)
        fetched: Fetched = await swarm.timed(task)  # type: ignore[arg-type]
        assert (tmp_path / "got").read_bytes() == BLOB
        assert fetched.fetched_bytes < len(BLOB) * 1.2
        assert progress == sorted(progress)
        assert all(library.given_bytes > 0 for library in swarm.libraries[:4])
        (over,) = fetcher.transfers.views()
        assert (over.done_bytes, over.outcome, fetcher.transfers.ended) == (len(BLOB), "done", {("down", "done"): 1})
        assert not (tmp_path / "got.part").exists()

    run(scene())


def test_a_fetch_takes_as_long_as_its_messages_and_no_longer(blob_path: Path, tmp_path: Path) -> None:
    """Asking began only at the next look for providers, ten seconds later, until a benchmark showed it."""

    async def scene() -> None:
        swarm = Swarm(blob_path, [None])
        began = swarm.clock.monotonic()
        await swarm.timed(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "got")))
        assert swarm.clock.monotonic() - began < 5.0

    run(scene())


def test_a_liar_is_blamed_and_its_pieces_come_from_others(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        wrong = tmp_path / "wrong"
        wrong.write_bytes(content(len(BLOB), 2))
        swarm = Swarm(blob_path, [None] * 3)
        swarm.libraries[1].share(Shared(wrong, swarm.manifest))
        fetched: Fetched = await swarm.timed(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "got")))
        assert (tmp_path / "got").read_bytes() == BLOB
        assert fetched.blamed == (swarm.seeders[1].peer,)
        swarm.libraries[0].withdraw(swarm.manifest.id)
        swarm.libraries[2].withdraw(swarm.manifest.id)
        with pytest.raises(Unavailable, match="wrong pieces came from"):
            await swarm.timed(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "again")))
        assert not (tmp_path / "again").exists()

    run(scene())


def test_seeders_with_parts_make_a_whole_and_a_missing_piece_is_said(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        count = len(manifest_of(blob_path).sizes)
        odd, even = set(range(1, count, 2)), set(range(0, count, 2))
        swarm = Swarm(blob_path, [odd, even - {0}])
        fetcher, _ = swarm.fetcher()
        with pytest.raises(Unavailable, match=f"the other 1 of {count} pieces.*what came is kept"):
            await swarm.timed(fetcher.fetch(Job(swarm.manifest.id, tmp_path / "got")))
        swarm.libraries[1].share(Shared(blob_path, swarm.manifest))
        fetched: Fetched = await swarm.timed(fetcher.fetch(Job(swarm.manifest.id, tmp_path / "got")))
        assert fetched.fetched_bytes == swarm.manifest.sizes[0]
        assert (tmp_path / "got").read_bytes() == BLOB

    run(scene())


def test_after_a_kill_only_what_is_missing_or_damaged_is_fetched(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        swarm = Swarm(blob_path, [None])
        half = Partial(tmp_path / "got", swarm.manifest)
        half.resume()
        for piece in range(0, len(swarm.manifest.sizes), 2):
            offset, size = swarm.manifest.offsets[piece], swarm.manifest.sizes[piece]
            half.put(piece, BLOB[offset : offset + size])
        half.close()  # as a kill leaves it: no rename
        with half.path.open("r+b") as file:
            file.write(b"a page that never reached the disk")
        fetched: Fetched = await swarm.timed(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "got")))
        odd = sum(swarm.manifest.sizes[1::2])
        assert fetched.fetched_bytes == odd + swarm.manifest.sizes[0]
        assert (tmp_path / "got").read_bytes() == BLOB

    run(scene())


def test_a_new_version_moves_only_the_pieces_around_the_change(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        new = tmp_path / "new"
        new.write_bytes(BLOB[:3_000_000] + b"inserted" * 100 + BLOB[3_000_000:])
        swarm = Swarm(new, [None])
        job = Job(swarm.manifest.id, tmp_path / "got", older=(blob_path,))
        fetched: Fetched = await swarm.timed(swarm.fetcher()[0].fetch(job))
        assert (tmp_path / "got").read_bytes() == new.read_bytes()
        assert 0 < fetched.fetched_bytes < 2 * MAX_BYTES

    run(scene())


def test_what_has_arrived_is_shared_by_who_fetches_and_loss_is_survived(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        swarm = Swarm(blob_path, [None], Weather((0.01, 0.02), loss=0.05))
        library = Library(swarm.clock)
        first, local = swarm.fetcher(library)
        library.register(local)
        await swarm.timed(first.fetch(Job(swarm.manifest.id, tmp_path / "one")))
        swarm.seeders = [local]
        second, _ = swarm.fetcher()
        await swarm.timed(second.fetch(Job(swarm.manifest.id, tmp_path / "two")))
        assert (tmp_path / "two").read_bytes() == BLOB

    run(scene())


def test_nothing_is_given_that_is_not_shared_nor_to_whom_it_is_not(blob_path: Path) -> None:
    async def scene() -> None:
        swarm = Swarm(blob_path, [None, set()])
        _, local = swarm.fetcher()
        seeder, body = swarm.seeders[0].peer, messages.blob_bytes(swarm.manifest.id)
        with pytest.raises(InvalidRequest, match="not shared"):
            await swarm.timed(local.call(seeder, "content.have", messages.blob_bytes(bytes(32)), CallOptions()))
        piece = messages.piece_bytes(swarm.manifest.id, 0)
        with pytest.raises(InvalidRequest, match="is not here"):
            await swarm.timed(local.call(swarm.seeders[1].peer, "content.piece", piece, CallOptions()))
        piece = messages.piece_bytes(swarm.manifest.id, 10_000)
        with pytest.raises(InvalidRequest, match="is not here"):
            await swarm.timed(local.call(seeder, "content.piece", piece, CallOptions()))
        swarm.libraries[0].may_read = lambda peer: peer != local.peer
        with pytest.raises(InvalidRequest, match="not shared with you"):
            await swarm.timed(local.call(seeder, "content.manifest", body, CallOptions()))

    run(scene())


def test_one_peer_gets_no_more_than_its_rate(blob_path: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        swarm = Swarm(blob_path, [None])
        swarm.libraries[0].bytes_per_s = 1e6
        began = swarm.clock.monotonic()
        await swarm.timed(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "got")))
        assert 5.0 <= swarm.clock.monotonic() - began < 20.0  # 6 MB: 1 MB at once, the rest at 1 MB/s

    run(scene())


# ---- chunks and bytes -----------------------------------------------------------------------------------------


def naive_sizes(data: bytes) -> list[int]:
    """The definition, byte by byte."""
    from shoal.mesh.content.chunker import GEAR, MASK_BITS, WINDOW

    sizes, start, value = [], 0, 0
    for place, byte in enumerate(data):
        value = ((value << 1) + int(GEAR[byte])) & 0xFFFFFFFF
        size = place + 1 - start
        is_cut = size >= MIN_BYTES and place + 1 >= WINDOW and value < 1 << (32 - MASK_BITS)
        if is_cut or size == MAX_BYTES:
            sizes.append(size)
            start = place + 1
    return [*sizes, len(data) - start] if start < len(data) else sizes


@pytest.mark.parametrize("size", [0, 1, 31, 32, 70_000, MIN_BYTES, 1_700_000])
def test_cuts_are_those_of_the_definition(size: int) -> None:
    data = content(size, 3)
    assert list(chunk_sizes(memoryview(data))) == naive_sizes(data)


def test_content_without_any_cut_is_cut_at_the_most() -> None:
    assert list(chunk_sizes(memoryview(bytes(2 * MAX_BYTES + 5)))) == [MAX_BYTES, MAX_BYTES, 5]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_any_bytes_are_a_message_or_the_peers_fault(junk: bytes, seed: int) -> None:
    """Invariant: each parsing function returns its type or raises PeerFault, for junk and for changed good messages."""
    rng = random.Random(seed)
    good = bytearray(messages.piece_bytes(bytes(32), 3))
    good[rng.randrange(len(good))] = rng.randrange(256)
    parsers = (
        messages.parse_blob,
        messages.parse_piece,
        lambda data: messages.parse_have(data, 9),
        lambda data: parse_manifest(data, bytes(32)),
    )
    for parser in parsers:
        for data in (junk, bytes(good)):
            try:
                parser(data)
            except PeerFault:
                continue


def test_what_is_had_survives_the_wire() -> None:
    for count in (0, 1, 8, 13):
        has = {piece for piece in range(count) if piece % 3}
        assert messages.parse_have(messages.have_bytes(has, count), count) == has
    with pytest.raises(PeerFault, match="after the last"):
        messages.parse_have(np.packbits(np.ones(8, np.uint8)).tobytes(), 5)


# ---- decisions ------------------------------------------------------------------------------------------------


def test_the_rarest_piece_is_asked_first_and_of_who_has_it() -> None:
    schedule = Schedule(range(10), seed=1)
    a, b = numbered(1), numbered(2)
    schedule.joined(a, range(10))
    schedule.joined(b, range(9))
    asks = schedule.next(0.0)
    assert next(ask.piece for ask in asks if ask.peer == a) == 9
    assert all(ask.piece != 9 for ask in asks if ask.peer == b)
    assert len({ask.piece for ask in asks}) == len(asks)


def test_a_slow_peer_does_not_hold_up_the_end_and_a_failing_one_is_given_up() -> None:
    schedule = Schedule([0], seed=1)
    slow, quick = numbered(1), numbered(2)
    schedule.joined(slow, [0])
    assert [ask.peer for ask in schedule.next(0.0)] == [slow]
    schedule.joined(quick, [0])
    assert schedule.next(0.5) == []
    assert [ask.peer for ask in schedule.next(2.0)] == [quick]
    assert schedule.next(9.0) == []  # two at most
    now = 10.0
    for _ in range(5):
        schedule.failed(quick, 0, now)
        now += 10
        schedule.next(now)
    assert quick not in schedule.sources
    schedule.lied(slow, "a wrong piece")
    assert schedule.is_stuck
    schedule.joined(slow, [0])
    assert schedule.is_stuck


# ---- peers that mean harm -------------------------------------------------------------------------------------


def test_a_blob_of_another_size_than_promised_is_not_begun(blob_path: Path, tmp_path: Path) -> None:
    """A liar's blob of a terabyte filled the disk before the model's hash could tell."""

    async def scene() -> None:
        swarm = Swarm(blob_path, [None])
        job = Job(swarm.manifest.id, tmp_path / "got", size_bytes=len(BLOB) - 1)
        with pytest.raises(Unavailable, match=f"{len(BLOB) - 1} bytes was promised, it has {len(BLOB)}"):
            await swarm.timed(swarm.fetcher()[0].fetch(job))
        assert not list(tmp_path.iterdir())

    run(scene())


def test_what_the_disk_has_no_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=MIN_BYTES - 1))
    partial = Partial(tmp_path / "x", manifest((bytes(32),), (MIN_BYTES,)))
    with pytest.raises(LocalError, match=r"free, the rest takes .*make room"):
        partial.require_room()
    partial.close()


@pytest.mark.parametrize("retry_after_s", [math.inf, math.nan, -1.0, 1e300])
def test_a_peer_that_is_busy_for_ever_does_not_hold_a_fetch_for_ever(
    blob_path: Path, tmp_path: Path, retry_after_s: float
) -> None:
    """It was waited for as long as it said: with infinity, a fetch never ended."""

    async def scene() -> None:
        swarm = Swarm(blob_path, [])
        liar = swarm.mesh.join()
        busy = Library(swarm.clock)
        busy.share(Shared(blob_path, swarm.manifest))
        for name in ("manifest", "have"):
            liar.unary(f"content.{name}", getattr(busy, f"_on_{name}"))

        async def refuse(incoming: Any, body: memoryview) -> bytes:
            raise Overloaded("busy", retry_after_s)

        liar.unary("content.piece", refuse)
        swarm.seeders = [liar]
        task = asyncio.ensure_future(swarm.fetcher()[0].fetch(Job(swarm.manifest.id, tmp_path / "got")))
        for _ in range(400):
            await swarm.tick()
            await swarm.clock.advance(1.0)
            if task.done():
                break
        with pytest.raises(Unavailable, match=r"no piece came for 180 s|nobody has the other"):
            task.result()

    run(scene())


def test_a_manifest_of_crumbs_is_the_peers_fault() -> None:
    """A million pieces of a byte each cost a gigabyte to keep books of, for a file of a megabyte."""
    crumbs = manifest((bytes(32),) * 1000, (1,) * 1000)
    with pytest.raises(PeerFault, match=f"pieces of {MIN_BYTES} to {MAX_BYTES}"):
        parse_manifest(crumbs.to_bytes(), crumbs.id)
    many = encode([1, b"", [0] * 100_000])
    with pytest.raises(PeerFault, match="at most 4 values"):
        parse_manifest(many, bytes(32))


def test_a_short_write_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = manifest((bytes(32),), (MIN_BYTES,))
    partial = Partial(tmp_path / "x", whole)
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, offset: len(data) // 2)
    with pytest.raises(LocalError, match=r"x.part cannot be written: No space left on device; make room"):
        partial.put(0, bytes(MIN_BYTES))
    assert partial.missing == {0}
    partial.close()
