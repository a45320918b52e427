"""One peer's copy of a namespace: writes, tells some neighbours at once, and compares itself with one now and then.

A thin loop around `replica`, `heads` and `disk`. A write is on disk before anybody hears of it: an author that forgot
an entry would sign another in its place, and that is what a cheat looks like.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.clock import Clock
from shoal.core.errors import Overloaded, PeerFault, ShoalError, Unavailable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.bucket import Bucket
from shoal.mesh.calls import Answering, Body, Caller, CallOptions, Incoming
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import messages
from shoal.mesh.store.disk import Disk, Saved
from shoal.mesh.store.entry import Entry, Operation, Remove
from shoal.mesh.store.grant import Namespace
from shoal.mesh.store.heads import Head, Heads, Items, exchange
from shoal.mesh.store.log import Fork
from shoal.mesh.store.messages import Bundle, bundled
from shoal.mesh.store.replica import Limits, Received, Replica

_log = logging.getLogger(__name__)

SLICE = 64
"""Entries checked before other work gets its turn (about 10 ms)."""
MAX_ROUNDS = 64
MAX_CALLS = 512
MAX_ASKED = 8192
"""Calls and open ranges of one comparison. Twenty thousand authors that all differ need 4,096 ranges; who splits ranges
without end has nothing to say."""
WITNESSES = 3
"""Peers, where there are so many, that are asked for the own log after damage: one alone could hide it, and what is
written then would look like cheating."""
PUSH_RATE, PUSH_BURST = 2e6, 32e6
MAX_PUSHERS = 4096
"""Bytes a second that one peer may push, what it may push at once, and how many such peers are kept books of. An author
may replace a megabyte by the next one for ever, and each is written to the disk."""
LARGE = 64 * 1024
"""A bundle that is read aside, so that the event loop goes on."""
CHECKPOINT_SHARE = 0.5
"""Of the room for its log, used by an author that then writes a checkpoint."""


@dataclass(frozen=True, slots=True)
class Options:
    """`fanout` neighbours hear of a new entry at once; every `period_s` one is compared with."""

    fanout: int = 3
    period_s: float = 10.0
    timeout_s: float = 10.0
    limits: Limits = field(default_factory=Limits)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What a store stands on. `neighbours`: peers that can be called now. `path` None: in memory only."""

    caller: Caller
    answering: Answering
    clock: Clock
    identity: PrivateKey
    neighbours: Callable[[], Sequence[PeerId]]
    path: Path | None = None


class Store:
    """`load` first; `run` must be running for peers to hear of what was written and the other way round."""

    def __init__(self, ground: Ground, namespace: Namespace, options: Options = Options()) -> None:
        self.replica = Replica(namespace, options.limits)
        self.damage = ""
        self.num_refused = 0
        self._ground = ground
        self._options = options
        self._id = namespace.id
        self._disk = None if ground.path is None else Disk(ground.path)
        self._lock = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._witnesses = set[PeerId]()
        self._pushers: dict[PeerId, Bucket] = {}
        self._random = random.Random(options.seed)  # noqa: S311  whom to tell, not a secret
        self._fresh: list[Entry | Fork] = []
        self._wake = asyncio.Event()
        self._heads: tuple[int, Heads] = (-1, Heads({}))
        ground.answering.unary("store.compare", self._on_compare)
        ground.answering.unary("store.entries", self._on_entries)
        ground.answering.unary("store.push", self._on_push)

    # ---- what is asked of it --------------------------------------------------------------------------------

    async def load(self) -> str:
        """Read what is on disk; what was wrong with it, or "". After damage nothing may be written before a
        comparison with a peer: the own log has to be found again first."""
        if self._disk is not None:
            loaded = await asyncio.to_thread(self._disk.load, self._id)
            self.replica.receive(loaded.entries, self._ground.clock.wall(), loaded.forks, is_trusted=True)
            self.damage = loaded.damage
            if self.damage:
                _log.warning("%s", self.damage)
        return self.damage

    async def write(self, *operations: Operation) -> Entry:
        """Sign, keep on disk and spread one entry. LocalError where it would be refused."""
        if self.damage:
            raise Unavailable(f"{self.damage}; writing waits until a peer has been asked for what was written before")
        async with self._lock:
            key, now = self._ground.identity, self._ground.clock.wall()
            log = self.replica.logs.get(key.public)
            if log and log.size_bytes > CHECKPOINT_SHARE * self._options.limits.author_bytes:
                await self._keep(self.replica.checkpoint(key, now))
            received = self.replica.write(key, operations, now)
            await self._keep(received)
            return received.accepted[0]

    async def remove(self, key: str, element: bytes) -> None:
        """Take an element out of a set."""
        await self.write(Remove(key, self.replica.tags(key, element)))

    async def synchronise(self, peer: PeerId) -> Received:
        """Compare with one peer until both have the same, as far as either takes it. ShoalError where it fails."""
        total, before = Received(), list[tuple[Head, Head]]()
        for _ in range(MAX_ROUNDS):
            pairs = await self._differences(peer)
            if not pairs or pairs == before:  # all the same, or one side will not take the rest
                break
            plan, before = exchange(pairs), pairs
            news = await self._fetch(peer, plan.wanted)
            total.accepted += news.accepted
            total.refused += news.refused
            total.forks += news.forks
            await self._give(peer, plan.offered)
        self._witnesses.add(peer)
        if len(self._witnesses) >= min(WITNESSES, len(self._ground.neighbours())):
            self.damage = ""
        return total

    async def run(self) -> None:
        """Spread and compare until cancelled."""
        await asyncio.gather(self._spread(), self._compare())

    def close(self) -> None:
        if self._disk is not None:
            self._disk.close()

    # ---- loops ----------------------------------------------------------------------------------------------

    async def _spread(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.spread()

    async def spread(self) -> None:
        """Tell some neighbours what is new here."""
        fresh, self._fresh = self._fresh, []
        entries = [item for item in fresh if isinstance(item, Entry)]
        forks = [item for item in fresh if isinstance(item, Fork)]
        bundle = bundled(entries, forks)  # what does not fit is found by comparing
        neighbours = list(self._ground.neighbours())
        chosen = self._random.sample(neighbours, min(self._options.fanout, len(neighbours)))
        if fresh:
            await asyncio.gather(*(self._tell(peer, bundle) for peer in chosen))

    async def _tell(self, peer: PeerId, bundle: Bundle) -> None:
        try:
            await self._call(peer, "store.push", messages.bundle_bytes(self._id, bundle))
        except ShoalError as error:
            _log.debug("%s was not told: %s", peer.short, error)

    async def _compare(self) -> None:
        while True:
            await self.compare()
            await self._ground.clock.sleep(self._options.period_s * self._random.uniform(0.5, 1.5))

    async def compare(self) -> None:
        """Compare with a neighbour taken by chance."""
        neighbours = list(self._ground.neighbours())
        if neighbours:
            peer = self._random.choice(neighbours)
            try:
                await self.synchronise(peer)
            except ShoalError as error:
                _log.debug("not compared with %s: %s", peer.short, error)

    # ---- comparing ------------------------------------------------------------------------------------------

    async def _differences(self, peer: PeerId) -> list[tuple[Head, Head]]:
        heads = self._snapshot()
        asked, pairs, calls = [heads.all()], list[tuple[Head, Head]](), 0
        while asked:
            calls += 1
            if calls > MAX_CALLS or len(asked) > MAX_ASKED:
                raise PeerFault("expected a comparison that comes to an end, found ranges within ranges")
            batch, asked = asked[: messages.MAX_RANGES], asked[messages.MAX_RANGES :]
            data = await self._call(peer, "store.compare", messages.compare_bytes(self._id, batch))
            for finding in messages.parse_findings(data, batch):
                match finding:
                    case None:
                        continue
                    case Items():
                        pairs += heads.differences(finding)
                    case smaller:
                        asked += heads.differing(smaller)
            if len(pairs) >= messages.MAX_AUTHORS:
                break
        return pairs[: messages.MAX_AUTHORS]

    async def _fetch(self, peer: PeerId, wanted: dict[bytes, int]) -> Received:
        total = Received()
        for _ in range(MAX_CALLS if wanted else 0):  # whoever has still more then is asked again at the next comparison
            data = await self._call(peer, "store.entries", messages.wanted_bytes(self._id, wanted))
            bundle = await self._read(data)
            news = await self.take(bundle)
            total.accepted += news.accepted
            total.refused += news.refused
            total.forks += news.forks
            last = {entry.link.author: entry.link.sequence for entry in bundle.entries}
            wanted = {author: max(first, last.get(author, 0) + 1) for author, first in wanted.items()}
            if not bundle.is_more or not (news.accepted or news.forks):
                break
        return total

    async def _give(self, peer: PeerId, offered: dict[bytes, int]) -> None:
        bundle = self._bundle(offered)
        if bundle.entries or bundle.forks:
            await self._call(peer, "store.push", messages.bundle_bytes(self._id, bundle))

    def _bundle(self, wanted: dict[bytes, int]) -> Bundle:
        logs = [(self.replica.logs[author], first) for author, first in wanted.items() if author in self.replica.logs]
        return bundled(
            (entry for log, first in logs for entry in log.since(first)),
            [log.fork for log, _ in logs if log.fork is not None],
        )

    async def take(self, bundle: Bundle) -> Received:
        """Check, apply, keep and pass on what came. PeerFault, after what was good is taken, for what is a fault."""
        total = Received()
        entries = sorted(bundle.entries, key=lambda entry: (entry.link.author, entry.link.sequence))
        slices = [entries[first : first + SLICE] for first in range(0, len(entries), SLICE)] or [[]]
        for number, some in enumerate(slices):
            async with self._lock:
                news = self.replica.receive(some, self._ground.clock.wall(), bundle.forks if number == 0 else ())
                await self._keep(news)
            total.accepted += news.accepted
            total.refused += news.refused
            total.forks += news.forks
            if any(refusal.is_fault for refusal in news.refused):
                break  # the rest is not worth its signatures' time
            await asyncio.sleep(0)
        self.num_refused += len(total.refused)
        if (fault := next((refusal for refusal in total.refused if refusal.is_fault), None)) is not None:
            raise PeerFault(fault.why)
        return total

    def _pusher(self, peer: PeerId) -> Bucket:
        now = self._ground.clock.monotonic()
        if peer not in self._pushers and len(self._pushers) >= MAX_PUSHERS:
            rested_s = PUSH_BURST / PUSH_RATE
            self._pushers = {known: item for known, item in self._pushers.items() if now - item.since < rested_s}
            if len(self._pushers) >= MAX_PUSHERS:
                raise Overloaded("too many peers push here at once")
        return self._pushers.setdefault(peer, Bucket(PUSH_RATE, PUSH_BURST, now))

    async def _read(self, data: memoryview) -> Bundle:
        if len(data) <= LARGE:
            return messages.parse_bundle(data, self._id)
        async with self._reading:  # one at a time: who sends many waits for the first
            return await asyncio.to_thread(messages.parse_bundle, data, self._id)

    async def _keep(self, received: Received) -> None:
        """On disk first, then ready to be spread."""
        if self._disk is not None and received.authors:
            changes = [self._saved(author, received) for author in received.authors]
            await asyncio.to_thread(self._disk.save, self._id, changes)
        if received.authors:
            self._fresh = [*self._fresh, *received.accepted, *received.forks][-messages.MAX_ENTRIES :]
            self._wake.set()

    def _saved(self, author: bytes, received: Received) -> Saved:
        log = self.replica.logs[author]
        entries = [entry for entry in received.accepted if entry.link.author == author]
        kept = tuple(entry for entry in entries if log.base <= entry.link.sequence <= log.head)
        return Saved(log, log.base, log.head, log.fork, kept)

    def _snapshot(self) -> Heads:
        if self._heads[0] != self.replica.version:
            self._heads = (self.replica.version, Heads(self.replica.logs))
        return self._heads[1]

    async def _call(self, peer: PeerId, method: str, body: bytes) -> memoryview:
        return await self._ground.caller.call(peer, method, body, CallOptions(timeout_s=self._options.timeout_s))

    # ---- what others ask ------------------------------------------------------------------------------------

    async def _on_compare(self, incoming: Incoming, body: memoryview) -> Body:
        heads = self._snapshot()
        return messages.findings_bytes([heads.answer(item) for item in messages.parse_compare(body, self._id)])

    async def _on_entries(self, incoming: Incoming, body: memoryview) -> Body:
        return messages.bundle_bytes(self._id, self._bundle(messages.parse_wanted(body, self._id)))

    async def _on_push(self, incoming: Incoming, body: memoryview) -> Body:
        if not self._pusher(incoming.peer).take(len(body), self._ground.clock.monotonic()):
            raise Overloaded("you push more than is taken from one peer", 1 + len(body) / PUSH_RATE)
        await self.take(await self._read(body))
        return b""
