"""A node in its mesh: joins, tells its load, serves peers within limits, and knows who can answer what."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from shoal.core.clock import Clock
from shoal.core.encoding import encode
from shoal.core.errors import BadConfig, InvalidRequest, ShoalError
from shoal.core.service import MeshView, ModelCard, PeerView, PingView
from shoal.crypto.keys import PrivateKey
from shoal.fleet.accounts import Accounts, Limits
from shoal.fleet.neighbours import MAX_MET, Neighbours, Sighting
from shoal.fleet.provider import Provider
from shoal.fleet.sharing import Sharing
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions, Incoming
from shoal.mesh.content import Transfers
from shoal.mesh.dht import topic_of
from shoal.mesh.gossip import Load
from shoal.mesh.nat.natpmp import default_gateway
from shoal.mesh.peer_id import TEXT_LENGTH, PeerId
from shoal.mesh.ticket import Ticket
from shoal.node.config import NodeConfig
from shoal.node.fleet import Fleet
from shoal.node.mesh_control import Control
from shoal.node.mesh_home import MeshHome, read_tickets
from shoal.node.mesh_parts import Parts, Place, mesh_parts
from shoal.node.mesh_store import MeshStore
from shoal.node.mesh_view import mesh_view, peer_view, with_transfers
from shoal.node.model_shelf import ModelShelf
from shoal.trust.reputation.ledger import StoreLedger

_log = logging.getLogger(__name__)

LOAD_S = 0.5
"""Between two looks at the own load; it is told when it changed."""
REJOIN_S = 5.0
SAVE_S = 60.0
PUBLISH_S = 1200.0
"""Records live two hours and are renewed by the directory itself; this is for adapters loaded since."""
PINGS = 4
UNSTEADY_QUEUE = 32
"""So many requests seem to wait at a peer that is suspected or comes and goes: whoever is steadier is asked first."""
MAX_RELAYS = 4
"""Taken from tickets."""
PING = "node.ping"
UNHEARD_OF = "nobody told this node of that peer, and the directory has no address of it; is it up, and in this mesh?"
MICROCENTS_PER_KTOK = 1e5
"""US dollars for a million tokens in the unit of load records."""


@dataclass(slots=True)
class Mesh:
    """A node's running mesh."""

    config: NodeConfig
    clock: Clock
    parts: Parts
    accounts: Accounts
    neighbours: Neighbours
    seeds: tuple[Address, ...]
    transfers: Transfers
    sellers: Callable[[str], list[PeerId]] = lambda model: []
    ledger: StoreLedger | None = None

    def providers(self) -> Sequence[Provider]:
        return self.neighbours.providers()

    def view(self) -> MeshView:
        return with_transfers(mesh_view(self.parts, self.accounts, self.neighbours, self.sharing), self.transfers)

    @property
    def sharing(self) -> str:
        return self.accounts.limits.sharing

    def ticket(self) -> Ticket:
        """What another machine joins with."""
        return Ticket((self.parts.switchboard.address(),), secret=self.parts.place.secret)

    async def ping(self, text: str) -> PingView:
        """Round trips to a peer, connecting first where needed; never raises for what the network does."""
        peer = self._known(text)
        if not await self._can_be_found(peer):
            return PingView(PeerView(str(peer), "unknown"), failure=UNHEARD_OF)
        rtts, failure = [], ""
        try:
            for _ in range(PINGS):
                began = self.clock.monotonic()
                await self.parts.rpc.call(peer, PING, b"", CallOptions(timeout_s=10.0))
                rtts.append(self.clock.monotonic() - began)
        except ShoalError as error:
            failure = str(error)
        return PingView(peer_view(peer, self.parts, self.accounts, self.neighbours), tuple(rtts), failure)

    async def _can_be_found(self, peer: PeerId) -> bool:
        """Whether there is an address to dial, here or in the directory."""
        switchboard = self.parts.switchboard
        reports = {report.peer: report for report in switchboard.snapshot()}
        is_linked = peer in reports and reports[peer].link is not None
        if is_linked or not switchboard.book.address(peer, self.clock.monotonic()).is_empty:
            return True
        with contextlib.suppress(ShoalError):
            if (address := await self.parts.dht.resolve(peer)) is not None:
                switchboard.learn(address, "dht")
                return True
        return False

    def _known(self, text: str) -> PeerId:
        """A peer by its id, or by the beginning of it where that names one peer only."""
        known = {report.peer for report in self.parts.switchboard.snapshot()}
        known |= {member.peer for member in self.parts.gossip.members()}
        found = [peer for peer in known if str(peer).startswith(text)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise InvalidRequest(f"{len(found)} peers begin with {text!r}; write more of it", "peer")
        if len(text) < TEXT_LENGTH:
            raise InvalidRequest(f"no peer known here begins with {text!r}; `shoal peers` lists them", "peer")
        return PeerId.parse(text)

    # ---- loops ------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Find the others, and again whenever nobody is left."""
        switchboard, gossip = self.parts.switchboard, self.parts.gossip
        for seed in self.seeds:
            switchboard.learn(seed, "ticket")
        while True:
            if len([member for member in gossip.members() if member.is_present]) < 2:
                found = [report.peer for report in switchboard.snapshot() if report.link is not None]
                peers = [seed.peer for seed in self.seeds if seed.peer != self.parts.me]
                if await gossip.join([*found, *peers]) > 1:
                    await self._enter_dht()
            await asyncio.gather(*(gossip.join([peer]) for peer in self._risen()))
            await self.clock.sleep(REJOIN_S)

    def _risen(self) -> list[PeerId]:
        """Peers that count as dead and have a link again: the network was away, and they should hear of it."""
        members = [self.parts.gossip.member(peer) for peer in self.parts.switchboard.connected()]
        return [member.peer for member in members if member is not None and member.status == "dead"]

    async def _enter_dht(self) -> None:
        members = [member.statement.address for member in self.parts.gossip.members() if member.is_present]
        others = [address for address in members if address.peer != self.parts.me][:8]
        with contextlib.suppress(ShoalError):
            await self.parts.dht.bootstrap(others)
            await self.parts.dht.announce()

    async def tell_load(self, fleet: Fleet) -> None:
        """Say how busy this node is whenever that changed."""
        told: Load | None = None
        while True:
            load = self._load(fleet)
            if load != told:
                self.parts.gossip.set_load(load)
                told = load
            await self.clock.sleep(LOAD_S)

    def _load(self, fleet: Fleet) -> Load:
        if fleet.local is None or self.sharing == "private":
            return Load()
        stats, cards = fleet.local.stats(), fleet.local.models()
        return Load(
            stats.num_waiting,
            stats.num_running,
            fleet.speeds.stream_tps or 0.0,
            _changing(self.parts.place.key, [card.id for card in cards]),
            int(self.config.share_price * MICROCENTS_PER_KTOK),
        )

    async def publish(self, fleet: Fleet) -> None:
        """Say in the directory which models this node serves, where it serves any."""
        while fleet.local is not None and self.sharing in ("swarm", "public"):  # others need not know what a few get
            for card in fleet.local.models():
                with contextlib.suppress(ShoalError):
                    await self.parts.dht.provide(_topic(card.id))
            await self.clock.sleep(PUBLISH_S)

    async def discover(self, model: str) -> bool:
        """Look in the swarm's store, then in the directory, for peers that serve `model`; whether one does."""
        if await self.neighbours.meet(self.sellers(model), model):
            return True
        dht, peers = self.parts.dht, list[PeerId]()
        with contextlib.suppress(ShoalError):
            for record in (await dht.providers(_topic(model)))[: 2 * MAX_MET]:
                if record.author != self.parts.me and (address := await dht.resolve(record.author)) is not None:
                    self.parts.switchboard.learn(address, "dht")
                    peers.append(record.author)
        return bool(peers) and await self.neighbours.meet(peers, model)

    async def observe(self) -> None:
        """Learn from public peers how this node looks from outside."""
        nat = self.parts.nat
        if nat is not None:
            await nat.run(self._observers, _gateway(self.config))

    async def _observers(self) -> tuple[PeerId, ...]:
        while not (found := [r.peer for r in self.parts.switchboard.snapshot() if r.link and r.link.carrier == "quic"]):
            await self.clock.sleep(1.0)
        return tuple(found)

    async def save(self, home: MeshHome) -> None:
        """Keep on disk where to begin next time, and the ticket as it is now."""
        while True:
            home.save_ticket(self.ticket())
            others = [member.statement.address for member in self.parts.gossip.members() if member.is_present]
            known = [address for address in others if address.peer != self.parts.me]
            home.save_peers(known, self.parts.place.secret)
            await self.clock.sleep(SAVE_S)


@asynccontextmanager
async def meshing(config: NodeConfig, fleet: Fleet, clock: Clock) -> AsyncIterator[Mesh]:
    """Join the mesh of `config`; `fleet` asks it and answers for it. BadConfig, InvalidRequest (a bad ticket)."""
    home = MeshHome(config.home)
    tickets = read_tickets(config.tickets, clock.wall())
    secret = _secret(config, home, tickets)
    key = home.identity().key
    place = Place(key, config.mesh_host, 0, _relays(config, tickets), secret, bool(config.relays), config.relay_token)
    async with _listening(config, home, place, clock) as parts:
        home.save_port(parts.port)
        accounts = Accounts(_limits(config))
        neighbours = Neighbours(parts.rpc, clock, accounts, lambda: _seen(parts), lambda: _rtts_s(parts))
        seeds = (*(address for ticket in tickets for address in ticket.bootstrap), *home.peers(secret, clock.wall()))
        mesh = Mesh(config, clock, parts, accounts, neighbours, tuple(dict.fromkeys(seeds)), Transfers(clock))
        _register(mesh, fleet, secret)
        shelf = ModelShelf(
            config.home,
            clock,
            parts.dht,
            lambda peer: accounts.is_served(peer, secret is not None),
            frozenset(config.share_models),
            mesh.transfers,
        )
        shelf.register(parts.rpc)
        store = MeshStore(parts, config.home / "mesh", clock)
        mesh.sellers, mesh.ledger = store.sellers, store.ledger
        fleet.peers, fleet.mesh, fleet.ping, fleet.discover = mesh.providers, mesh.view, mesh.ping, mesh.discover
        parts.switchboard.start()
        loops = [
            mesh.join(),
            mesh.tell_load(fleet),
            mesh.publish(fleet),
            mesh.observe(),
            mesh.save(home),
            neighbours.run(),
            shelf.run(),
            store.run(lambda: _served(fleet, accounts), config.share_price),
        ]
        loops += [parts.gossip.run(), parts.dht.run(), *([parts.lan.run()] if config.lan else [])]
        async with _running(loops), Control(config, parts, mesh.transfers, mesh.seeds).open(home):
            yield mesh
            await parts.gossip.leave()
            if parts.nat is not None:
                await parts.nat.close(_gateway(config))
        home.forget_ticket()


def _gateway(config: NodeConfig) -> str | None:
    """The router to ask for a port; none where this node listens on one address only."""
    return default_gateway() if config.mesh_host == "0.0.0.0" else None  # noqa: S104


def _served(fleet: Fleet, accounts: Accounts) -> Sequence[ModelCard]:
    """What peers may ask of this node."""
    return () if fleet.local is None or accounts.limits.sharing == "private" else fleet.local.models()


def _changing(key: PrivateKey, names: Iterable[str]) -> bytes:
    """Another value whenever the models are others. Keyed: nobody learns them by hashing names they can think of."""
    return hmac.digest(key.seed, encode(["shoal load models v1", sorted(names)]), "sha256")[:8]


def _topic(model: str) -> bytes:
    return topic_of(f"model:{model}")


def _relays(config: NodeConfig, tickets: list[Ticket]) -> tuple[str, ...]:
    """Those of the configuration, else those that the tickets' peers use: whoever joins needs no other option."""
    told = (url for ticket in tickets for address in ticket.bootstrap for url in address.relays)
    return config.relays or tuple(dict.fromkeys(told))[:MAX_RELAYS]


def _secret(config: NodeConfig, home: MeshHome, tickets: list[Ticket]) -> bytes | None:
    """The tickets' swarm; without a ticket our own, unless this node shares with everybody."""
    secrets = {ticket.secret for ticket in tickets}
    if len(secrets) > 1:
        raise BadConfig("tickets", "these tickets are of different swarms; a node is in one")
    if secrets:
        return secrets.pop()
    return None if config.share_with == "public" else home.own_secret()


@asynccontextmanager
async def _listening(config: NodeConfig, home: MeshHome, place: Place, clock: Clock) -> AsyncIterator[Parts]:
    """At the port that was asked for, or at last time's where it is still free, or at any."""
    wished = home.port() if config.mesh_port is None else config.mesh_port
    for port in dict.fromkeys((wished, 0) if config.mesh_port is None else (wished,)):
        manager = mesh_parts(replace(place, port=port), clock)
        try:
            parts = await manager.__aenter__()
        except BadConfig:
            if port and config.mesh_port is None:
                continue
            raise
        try:
            yield parts
        finally:
            await manager.__aexit__(None, None, None)
        return


def _limits(config: NodeConfig) -> Limits:
    listed = frozenset(PeerId.parse(text) for text in config.serve_peers)
    sharing = config.share_with if config.share else "listed" if listed else "private"
    total = max(1, config.max_running // 2)
    return Limits(sharing, listed, min(config.share_requests, total), total, float(config.share_tokens))


def _register(mesh: Mesh, fleet: Fleet, secret: bytes | None) -> None:
    async def answer_ping(incoming: Incoming, body: memoryview) -> bytes:
        return str(int(mesh.clock.wall() * 1000)).encode()  # so that clocks can be compared

    mesh.parts.rpc.unary(PING, answer_ping)
    generate, local = fleet.own_generate(), fleet.local
    if generate is None or local is None:
        return
    sharing = Sharing(
        generate,
        local.models,
        mesh.accounts,
        lambda peer: secret is not None,  # whoever gets as far as a call has proven the swarm's secret
        mesh.clock,
        mesh.config.share_price,
        lambda: fleet.speeds.load(local.stats()),
    )
    sharing.register(mesh.parts.rpc)


def _seen(parts: Parts) -> list[Sighting]:
    """Everybody present. Who is suspected, or comes and goes, is still better than nobody: asked last, not never."""
    found = []
    for member in parts.gossip.members():
        if member.peer != parts.me and member.is_present:
            load = member.statement.load
            waiting = load.queue + (0 if parts.gossip.is_usable(member.peer) else UNSTEADY_QUEUE)
            is_lost, tells = parts.switchboard.is_doubtful(member.peer), parts.switchboard.tells_its_end(member.peer)
            found.append(Sighting(member.peer, load.running, waiting, load.models, is_lost, tells))
    return found


def _rtts_s(parts: Parts) -> dict[PeerId, float]:
    reports = parts.switchboard.snapshot()
    return {report.peer: report.link.rtt_s for report in reports if report.link and report.link.rtt_s is not None}


@asynccontextmanager
async def _running(loops: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """All of them for as long as this is open. One that fails is logged: the node goes on without it."""

    async def guarded(loop: Coroutine[Any, Any, None]) -> None:
        try:
            await loop
        except Exception:
            _log.exception("a loop of the mesh ended")

    tasks = [asyncio.create_task(guarded(loop)) for loop in loops]
    try:
        yield
    finally:
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1.0)  # again: some library's `wait_for` may swallow the first one
