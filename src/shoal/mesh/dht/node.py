"""One peer's part in the DHT: answers others, walks to keys, keeps its own records alive.

A thin loop around the pure parts: `table`, `lookup`, `storage`, `messages`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from shoal.core.clock import Clock
from shoal.core.encoding import encode
from shoal.core.errors import PeerFault, ShoalError
from shoal.crypto.keys import PrivateKey
from shoal.mesh import parse
from shoal.mesh.address import Address
from shoal.mesh.calls import Answering, Body, Caller, CallOptions, Incoming
from shoal.mesh.dht import messages
from shoal.mesh.dht.contact import BITS, HINTS, Contact, has_worked, place, worked
from shoal.mesh.dht.finding import Finding
from shoal.mesh.dht.lookup import Lookup, Shape
from shoal.mesh.dht.messages import Find, Found, Put
from shoal.mesh.dht.record import Draft, Record, record_key, require_signature, signed
from shoal.mesh.dht.storage import Bounds, Storage
from shoal.mesh.dht.table import Limits, Table
from shoal.mesh.dht.walk import together, walk
from shoal.mesh.peer_id import PeerId

MAX_CHECKS = 64
"""Pings waiting to be made for the table; more are forgotten, the next newcomer asks again."""

TICK_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """difficulty   leading zero bits of a contact's work; all peers of one mesh need the same.
    paths        disjoint paths of lookups that read or store; those that refresh the table use one.
    enough       peers that must have shown records before a lookup for them stops early.
    lifetime_s   of own records, which are renewed every `republish_s`; buckets are refreshed every `refresh_s`.
    is_client    asks, is in nobody's table, stores nothing: for peers that come and go.
    """

    difficulty: int = 16
    limits: Limits = field(default_factory=Limits)
    bounds: Bounds = field(default_factory=Bounds)
    alpha: int = 3
    paths: int = 3
    enough: int = 4
    timeout_s: float = 4.0
    lifetime_s: int = 7200
    republish_s: float = 2400.0
    refresh_s: float = 1800.0
    is_client: bool = False
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What a DHT stands on. `learned` hears where peers may be reached before they are called."""

    caller: Caller
    answering: Answering
    clock: Clock
    identity: PrivateKey
    address: Callable[[], Address]
    learned: Callable[[Address], None] = field(default=lambda address: None)


class Dht:
    """`run` must be running for records to be renewed and the table to stay fresh."""

    def __init__(self, ground: Ground, options: Options = Options()) -> None:
        self.peer = PeerId(ground.identity.public)
        self.own = place(self.peer)
        self.table = Table(self.own, options.limits)
        self.storage = Storage(self.own, options.bounds)
        self._ground = ground
        self._options = options
        self._work = 0 if options.is_client else worked(Address(self.peer), options.difficulty).work
        self._random = random.Random(options.seed)  # noqa: S311  which part of a list is told, which bucket is looked up
        self._checks: deque[Contact] = deque(maxlen=MAX_CHECKS)
        self._own_records: dict[bytes, tuple[Draft, float]] = {}  # by key, with the time of the next renewal
        self._sequence = 0
        ground.answering.unary("dht.find", self._on_find)
        ground.answering.unary("dht.put", self._on_put)

    # ---- what is asked of it --------------------------------------------------------------------------------

    async def bootstrap(self, seeds: Iterable[Address]) -> int:
        """Enter the DHT through peers one knows of; how many peers the table has then. Twice is harmless."""
        for seed in seeds:
            self._ground.learned(seed)
            await self._ask(Contact(seed), self.own.to_bytes(32, "big"), False)
        await self.find_peers(self.own.to_bytes(32, "big"))
        for target in self.table.stale(self._now(), 0.0):
            await self.find_peers(self._near(target))
        return len(self.table)

    async def find_peers(self, key: bytes, paths: int = 1) -> tuple[Contact, ...]:
        """The peers nearest to a key that answered, nearest first."""
        return (await self._walk(key, paths, None)).closest()

    async def find_records(self, key: bytes) -> tuple[Record, ...]:
        """The newest current record of each author that peers showed, signatures checked."""
        finding = Finding(key, self._ground.clock.wall(), self._options.enough)
        await self._walk(key, self._options.paths, finding)
        own = self.storage.get(key, self._ground.clock.wall(), 32, self._random)
        return finding.with_own(own)

    async def put(self, draft: Draft) -> int:
        """Sign and store a record, and renew it until `withdraw`. How many peers hold it now."""
        key = record_key(draft.kind, draft.topic, self.peer)
        self._own_records[key] = (draft, self._now() + self._options.republish_s)
        return await self._publish(key, draft)

    def withdraw(self, draft: Draft) -> None:
        """Renew a record no more; copies live until they expire."""
        self._own_records.pop(record_key(draft.kind, draft.topic, self.peer), None)

    async def announce(self) -> int:
        """Store where this peer may be reached, under its own id."""
        return await self.put(Draft("peer", self.peer.key, encode(parse.address_fields(self._ground.address(), HINTS))))

    async def resolve(self, peer: PeerId) -> Address | None:
        """Where a peer says it may be reached, or None when nobody knows."""
        for record in await self.find_records(record_key("peer", peer.key)):
            if record.author == peer:
                return _address(record)
        return None

    async def provide(self, topic: bytes, value: bytes = b"") -> int:
        """Say that this peer serves `topic` (see `topic_of`)."""
        return await self.put(Draft("provider", topic, value))

    async def providers(self, topic: bytes) -> tuple[Record, ...]:
        """Who says to serve `topic`."""
        return await self.find_records(record_key("provider", topic))

    async def value(self, author: PeerId, topic: bytes) -> bytes | None:
        """The newest value that `author` signed for `topic`."""
        found = await self.find_records(record_key("value", topic, author))
        return next((record.value for record in found if record.author == author), None)

    async def run(self) -> None:
        """Renew, refresh, expire and check until cancelled."""
        while True:
            await self._ground.clock.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """One round of `run`: what is due now."""
        self.storage.expire(self._ground.clock.wall())
        checks = [self._checks.popleft() for _ in range(len(self._checks))]
        await together([self._ask(contact, contact.place.to_bytes(32, "big"), False) for contact in checks])
        for key, (draft, due) in list(self._own_records.items()):
            if due <= self._now():
                self._own_records[key] = (draft, self._now() + self._options.republish_s)
                await self._publish(key, draft)
        for target in self.table.stale(self._now(), self._options.refresh_s)[:1]:
            await self.find_peers(self._near(target))

    # ---- what others ask ------------------------------------------------------------------------------------

    async def _on_find(self, incoming: Incoming, body: memoryview) -> Body:
        find = messages.parse_find(body, incoming.peer)
        self._saw(find.sender)
        contacts = self.table.closest(int.from_bytes(find.key, "big"), self._options.limits.k)
        wall = self._ground.clock.wall()
        records = self.storage.get(find.key, wall, 32, self._random) if find.wants_records else []
        return messages.found_bytes(
            self._contact(), [other for other in contacts if other.peer != incoming.peer], records
        )

    async def _on_put(self, incoming: Incoming, body: memoryview) -> Body:
        put = messages.parse_put(body, incoming.peer)
        if put.sender is None or not has_worked(put.sender, self._options.difficulty):
            return messages.stored_bytes(
                f"storing costs {self._options.difficulty} bits of work, which the sender has not shown"
            )
        if self._options.is_client:
            return messages.stored_bytes("a client stores nothing")
        self._saw(put.sender)
        require_signature(put.record)
        return messages.stored_bytes(self.storage.put(put.record, self._ground.clock.wall()))

    # ---- how --------------------------------------------------------------------------------------------------

    async def _walk(self, key: bytes, paths: int, finding: Finding | None) -> Lookup:
        target = int.from_bytes(key, "big")
        self.table.looked(target, self._now())
        options = self._options
        shape = Shape(options.limits.k, options.alpha, paths)
        lookup = Lookup(target, self.own, self.table.closest(target, max(options.limits.k, paths)), shape)

        async def ask(contact: Contact) -> Sequence[Contact] | None:
            found = await self._ask(contact, key, finding is not None)
            if found is None or (finding is not None and not finding.take(contact.peer, found.records)):
                return None
            return found.contacts

        await walk(lookup, ask, (lambda: False) if finding is None else (lambda: finding.is_enough))
        return lookup

    async def _ask(self, contact: Contact, key: bytes, wants_records: bool) -> Found | None:
        """What a peer answered, its contacts without those that have not worked; None when it did not answer well."""
        self._ground.learned(contact.address)
        body = messages.find_bytes(Find(self._contact(), key, wants_records))
        try:
            data = await self._ground.caller.call(
                contact.peer, "dht.find", body, CallOptions(timeout_s=self._options.timeout_s)
            )
            found = messages.parse_found(data, contact.peer)
        except ShoalError:
            self.table.failed(contact)
            return None
        self._saw(found.sender)
        worth = tuple(other for other in found.contacts if has_worked(other, self._options.difficulty))
        return Found(found.sender, worth, found.records)

    async def _publish(self, key: bytes, draft: Draft) -> int:
        if draft.kind == "peer":
            draft = Draft("peer", draft.topic, encode(parse.address_fields(self._ground.address(), HINTS)))
        record = self._signed(draft)
        body = messages.put_bytes(Put(self._contact(), record))
        holders = await self.find_peers(key, self._options.paths)
        answers = await together([self._store(contact, body) for contact in holders])
        return sum(answers)

    async def _store(self, contact: Contact, body: bytes) -> bool:
        try:
            data = await self._ground.caller.call(
                contact.peer, "dht.put", body, CallOptions(timeout_s=self._options.timeout_s)
            )
            return messages.parse_stored(data) == ""
        except ShoalError:
            self.table.failed(contact)
            return False

    def _signed(self, draft: Draft) -> Record:
        """Sequence numbers are wall milliseconds, so that they grow over restarts as well."""
        wall = self._ground.clock.wall()
        self._sequence = max(self._sequence + 1, int(wall * 1000))
        return signed(draft, self._ground.identity, self._sequence, int(wall) + self._options.lifetime_s)

    def _saw(self, contact: Contact | None) -> None:
        if contact is None or not has_worked(contact, self._options.difficulty):
            return
        quietest = self.table.saw(contact, self._now())
        if quietest is not None:
            self._checks.append(quietest)

    def _contact(self) -> Contact | None:
        return None if self._options.is_client else Contact(self._ground.address(), self._work)

    def _near(self, target: int) -> bytes:
        """A random place in the bucket that begins at `target`."""
        free = BITS if target == self.own else (target ^ self.own).bit_length() - 1
        return (target | self._random.getrandbits(free) if free else target).to_bytes(32, "big")

    def _now(self) -> float:
        return self._ground.clock.monotonic()


def _address(record: Record) -> Address | None:
    """What a peer's record says, or None when it signed something else."""
    try:
        return parse.address(parse.message(record.value, 4096), record.author, HINTS)
    except PeerFault:
        return None
