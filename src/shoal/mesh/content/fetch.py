"""Fetching a blob: its manifest from anybody, its pieces from everybody who has some. A loop around `schedule`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.core.clock import Clock
from shoal.core.errors import Overloaded, PeerFault, ShoalError, Unavailable
from shoal.mesh.calls import Caller, CallOptions
from shoal.mesh.content import messages
from shoal.mesh.content.library import Library, Shared
from shoal.mesh.content.manifest import Manifest, parse_manifest
from shoal.mesh.content.partial import Partial
from shoal.mesh.content.schedule import Ask, Schedule
from shoal.mesh.content.transfers import Transfer, Transfers
from shoal.mesh.peer_id import PeerId

_log = logging.getLogger(__name__)

PIECE_S = 30.0
LOOK_AGAIN_S = 10.0
"""Between two looks for more providers and more of their pieces."""
MAX_PROVIDERS = 64
MAX_WAIT_S = 60.0
"""A peer that says it is busy for longer is asked again all the same."""
STALL_S = 180.0
"""Without a right piece for so long nobody counts as giving any, whatever they say they have."""
LARGE = 64 * 1024
"""A manifest that is read aside, so that the event loop goes on."""

Providers = Callable[[bytes], Awaitable[Sequence[PeerId]]]
"""Who says to have a blob: from the DHT, or from peers that were asked."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What fetching stands on. With a `library`, what has arrived is shared at once; `transfers` is told of all."""

    caller: Caller
    clock: Clock
    providers: Providers
    library: Library | None = None
    transfers: Transfers | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What to fetch, where to, and files whose pieces may be used instead of fetched ones.

    size_bytes  what it must be in all; None: any size the disk has room for.
    """

    blob: bytes
    path: Path
    name: str = ""
    older: tuple[Path, ...] = ()
    on_bytes: Callable[[int, int], None] = lambda done, size: None
    """(bytes there, bytes in all)"""
    size_bytes: int | None = None


@dataclass(slots=True)
class _Running:
    job: Job
    manifest: Manifest
    partial: Partial
    schedule: Schedule
    transfer: Transfer
    calls: dict[asyncio.Task[None], Ask] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)  # somebody said what it has
    fetched_bytes: int = 0
    moved_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """`fetched_bytes` came from peers; the rest of the blob was here. `blamed`: who sent what is wrong."""

    manifest: Manifest
    fetched_bytes: int
    blamed: tuple[PeerId, ...]


class Fetcher:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.transfers = ground.transfers or Transfers(ground.clock)

    async def fetch(self, job: Job) -> Fetched:
        """The blob at `job.path`, whole. Unavailable when nobody has the rest; what came stays for the next time."""
        with self.transfers.fetching(job.name or job.blob.hex()[:16]) as transfer:
            return await self._fetch(job, transfer)

    async def _fetch(self, job: Job, transfer: Transfer) -> Fetched:
        manifest = await self._manifest(job.blob)
        if job.size_bytes not in (None, manifest.size_bytes):
            raise Unavailable(f"a blob of {job.size_bytes} bytes was promised, it has {manifest.size_bytes}")
        transfer.size_bytes = manifest.size_bytes
        partial = Partial(job.path, manifest)
        try:
            await asyncio.to_thread(partial.resume, job.older)
            partial.require_room()
            transfer.done_bytes = partial.done_bytes
            run = _Running(job, manifest, partial, Schedule(partial.missing), transfer, moved_at=self._now())
            await self._complete(run)
            await asyncio.to_thread(partial.finish)
        finally:
            partial.close()
        if self._ground.library is not None:
            self._ground.library.share(Shared(job.path, manifest))
        return Fetched(manifest, run.fetched_bytes, tuple(run.schedule.blamed))

    async def _manifest(self, blob: bytes) -> Manifest:
        failures = []
        for peer in (await self._ground.providers(blob))[:MAX_PROVIDERS]:
            try:
                data = await self._call(peer, "content.manifest", messages.blob_bytes(blob))
                if len(data) <= LARGE:
                    return parse_manifest(data, blob)
                return await asyncio.to_thread(parse_manifest, data, blob)
            except ShoalError as error:
                failures.append(f"{peer.short}: {error}")
        raise Unavailable(f"nobody gave the manifest of {blob.hex()[:16]}; {'; '.join(failures) or 'no provider'}")

    async def _complete(self, run: _Running) -> None:
        library = self._ground.library
        if library is not None:
            library.share(Shared(run.partial.path, run.manifest, run.partial.has))
        looking = asyncio.create_task(self._look(run))
        try:
            while run.partial.missing:
                await self._step(run, looking)
        except BaseException:
            if library is not None:
                library.withdraw(run.manifest.id)
            raise
        finally:
            tasks = [looking, *run.calls]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self, run: _Running, looking: asyncio.Task[None]) -> None:
        """Ask, and wait until something has happened."""
        now = self._ground.clock.monotonic()
        for ask in run.schedule.next(now):
            run.calls[asyncio.create_task(self._piece(run, ask))] = ask
        if run.schedule.is_stuck and looking.done() and not run.calls:
            looking.result()
            lied = ", ".join(f"{peer.short} ({why})" for peer, why in run.schedule.blamed.items())
            raise Unavailable(
                f"nobody has the other {len(run.schedule.missing)} of {len(run.manifest.sizes)} pieces"
                + (f"; wrong pieces came from {lied}" if lied else "")
                + "; try again when more peers are there: what came is kept"
            )
        if now - run.moved_at > STALL_S:
            raise Unavailable(f"no piece came for {STALL_S:.0f} s, of {len(run.schedule.sources)} peers that have some")
        wait_s = run.schedule.wait_s(now)
        timer = asyncio.create_task(self._ground.clock.sleep(LOOK_AGAIN_S if wait_s is None else wait_s))
        news = asyncio.create_task(run.news.wait())
        waited: list[asyncio.Future[Any]] = [*run.calls, timer, news, *([] if looking.done() else [looking])]
        try:
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            news.cancel()
        run.news.clear()
        for task in [task for task in run.calls if task in done]:
            run.calls.pop(task)
            task.result()

    async def _look(self, run: _Running) -> None:
        """Find providers and what they have again and again, until nobody had the rest for three times."""
        fruitless = 0
        while fruitless < 3:
            peers = await self._ground.providers(run.job.blob)
            await asyncio.gather(*(self._have(run, peer) for peer in peers[:MAX_PROVIDERS]))
            fruitless = fruitless + 1 if run.schedule.is_stuck else 0
            await self._ground.clock.sleep(1.0 if fruitless else LOOK_AGAIN_S)

    async def _have(self, run: _Running, peer: PeerId) -> None:
        try:
            data = await self._call(peer, "content.have", messages.blob_bytes(run.job.blob))
            run.schedule.joined(peer, messages.parse_have(data, len(run.manifest.sizes)))
            run.news.set()
        except ShoalError as error:
            _log.debug("%s does not say what it has: %s", peer.short, error)

    async def _piece(self, run: _Running, ask: Ask) -> None:
        """One piece, checked and written. LocalError only for this machine's disk."""
        body = messages.piece_bytes(run.job.blob, ask.piece)
        try:
            data = await self._call(ask.peer, "content.piece", body)
        except PeerFault as error:
            run.schedule.lied(ask.peer, str(error))
            return
        except ShoalError as error:
            asked_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
            wait_s = min(asked_s, MAX_WAIT_S) if asked_s > 0 else 0.0  # a peer's own number, or none at all
            run.schedule.failed(ask.peer, ask.piece, self._now(), wait_s)
            return
        if ask.piece not in run.partial.has:
            if not run.partial.is_right(ask.piece, data):
                run.schedule.lied(ask.peer, f"piece {ask.piece} is not what its hash says")
                return
            run.partial.put(ask.piece, data)
        run.fetched_bytes += len(data)
        run.moved_at = self._now()
        run.schedule.arrived(ask.peer, ask.piece, len(data), self._now())
        self.transfers.came(run.transfer, ask.peer, len(data))
        run.transfer.done_bytes = run.partial.done_bytes
        run.job.on_bytes(run.partial.done_bytes, run.manifest.size_bytes)

    async def _call(self, peer: PeerId, method: str, body: bytes) -> memoryview:
        return await self._ground.caller.call(peer, method, body, CallOptions(timeout_s=PIECE_S, priority=-1))

    def _now(self) -> float:
        return self._ground.clock.monotonic()
