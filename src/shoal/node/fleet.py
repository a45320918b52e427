"""The router of a node: its engine, upstream servers and peers behind one `Generate`, and the `Service` of it all."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import httpx

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import BadConfig, ModelNotFound, ShoalError
from shoal.core.request import Message, Request
from shoal.core.seams import Generate
from shoal.core.service import DecisionView, EngineStats, MeshView, ModelCard, PingView, Service, no_mesh
from shoal.fleet.affinity import Affinity
from shoal.fleet.health import Health
from shoal.fleet.provider import Provider
from shoal.fleet.route import Decision, Router, nobody_more
from shoal.fleet.speeds import Speeds, observed
from shoal.fleet.upstream import Upstream, UpstreamConfig
from shoal.fleet.upstream_wire import CONTINUES, FLAVOURS, Flavour
from shoal.node.config import NodeConfig
from shoal.node.receipts import Signing

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

REFRESH_S = 30.0
"""Between two looks at an upstream's list of models."""
KEPT_DECISIONS = 50
LOCAL = "local"


@dataclass(slots=True)
class Fleet:
    """`local` is the engine's own service or None; `peers` gives those that answer now."""

    config: NodeConfig
    clock: Clock
    local: Service | None
    speeds: Speeds = field(default_factory=Speeds)
    peers: Callable[[], Sequence[Provider]] = tuple
    mesh: Callable[[], MeshView | None] = lambda: None
    ping: Callable[[str], Awaitable[PingView]] = no_mesh
    signing: Signing | None = None
    audited: Callable[[Provider], Provider] = lambda provider: provider
    health: Health = field(default_factory=Health)
    discover: Callable[[str], Awaitable[bool]] = nobody_more
    decided: Callable[[Decision], None] = lambda _: None
    upstreams: dict[str, Provider] = field(default_factory=dict)
    decisions: deque[DecisionView] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    asked: Counter[str] = field(default_factory=Counter)

    def providers(self) -> Sequence[Provider]:
        own = () if self.local is None else (self._own(self.local),)
        others = (*self.peers(), *self.upstreams.values())
        if self.signing is not None:
            others = tuple(self.audited(self.signing.provider(provider, self.distrust)) for provider in others)
        return (*own, *others)

    def distrust(self, name: str, reason: str) -> None:
        """A peer said about its answer what does not hold."""
        _log.warning("%s is left alone for a while: %s", name, reason)
        self.health.distrusted(name, reason, self.clock.monotonic())

    def own_generate(self) -> Generate | None:
        """The engine here, for peers to ask: never the router, so that a request travels one hop."""
        if self.local is None:
            return None
        generate = observed(self.local.generate, self.speeds)
        return generate if self.signing is None else self.signing.for_peers(generate)

    def service(self) -> Service:
        router = Router(self.providers, self.clock, self._note, self._allows, self.health, Affinity(), self.discover)
        local = self.local or _NOTHING
        return replace(
            local,
            generate=router.generate,
            models=self._models,
            not_ready=self._not_ready,
            tokenize=self._tokenize,
            mesh=self._view,
            ping=self.ping,
        )

    def _own(self, local: Service) -> Provider:
        generate = observed(local.generate, self.speeds)
        return Provider(LOCAL, "local", generate, tuple(local.models()), self.speeds.load(local.stats()))

    def _allows(self, request: Request, provider: Provider) -> bool:
        if self.config.route == "auto" or provider.kind == "local" or self.local is None:
            return True
        return request.model not in {card.id for card in self.local.models()}

    def _models(self) -> Sequence[ModelCard]:
        """Ours first; of the others those whose names are not taken yet."""
        found: dict[str, ModelCard] = {}
        for provider in self.providers():
            for card in provider.cards:
                found.setdefault(card.id, card)
        return tuple(found.values())

    def _not_ready(self) -> str | None:
        if self.local is not None and self.local.not_ready() is None:
            return None
        if len(self.providers()) > (self.local is not None):
            return None
        if self.local is not None:
            return self.local.not_ready()
        view = self.mesh()
        if view is None or not view.peers:
            return "this node has no model, and knows nobody else to ask yet; with a ticket, is the node it names up?"
        linked = sum(peer.state == "connected" for peer in view.peers)
        known = f"{linked} of {len(view.peers)} known peers connected"
        return f"this node has no model, and nobody it can reach serves one now ({known}): `shoal peers` says why"

    async def _tokenize(self, model: str, text: str | tuple[Message, ...], add_special: bool) -> list[int]:
        if self.local is None:
            raise ModelNotFound(model)
        return await self.local.tokenize(model, text, add_special)

    def _note(self, decision: Decision) -> None:
        self.decided(decision)
        kind = LOCAL if decision.provider == LOCAL else decision.provider.partition(":")[0]
        kind = kind if kind in (LOCAL, "upstream") else "peer"
        self.asked[f"{kind} {decision.outcome.partition(':')[0]}"] += 1
        self.decisions.append(
            DecisionView(
                decision.request_id,
                decision.provider,
                decision.why,
                decision.outcome,
                decision.num_tokens,
                self.clock.wall(),
            )
        )

    def _view(self) -> MeshView | None:
        view = self.mesh() or MeshView("", "private")
        return replace(view, decisions=tuple(self.decisions), asked=dict(self.asked))


@asynccontextmanager
async def with_upstreams(fleet: Fleet) -> AsyncIterator[Fleet]:
    """Keep `fleet.upstreams` true for as long as this is open. BadConfig for options that name no upstream."""
    configs = upstream_configs(fleet.config)
    if not configs:
        yield fleet
        return
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(limits=limits) as client:
        upstreams = [Upstream(config, client, fleet.clock) for config in configs]
        await asyncio.gather(*(_refresh(fleet, upstream) for upstream in upstreams))
        tasks = [asyncio.create_task(_watch(fleet, upstream)) for upstream in upstreams]
        try:
            yield fleet
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def upstream_configs(config: NodeConfig) -> list[UpstreamConfig]:
    """`upstreams` has NAME=[KIND+]URL; keys and prices name one of them."""
    keys, prices, names = dict(config.upstream_keys), dict(config.upstream_prices), dict(config.upstreams)
    for option, given in (("upstream_keys", keys), ("upstream_prices", prices)):
        if unknown := [name for name in given if name not in names]:
            raise BadConfig(option, f"no upstream is called {unknown[0]!r}; there are: {', '.join(names) or 'none'}")
    return [
        UpstreamConfig(name, *_place(name, place), keys.get(name), _price(name, prices.get(name, "0")))
        for name, place in config.upstreams
    ]


def _place(name: str, place: str) -> tuple[str, Flavour]:
    flavour, separator, url = place.partition("+")
    if not separator:
        flavour, url = "openai", place
    if flavour not in FLAVOURS or not url.startswith(("http://", "https://")):
        kinds = ", ".join(FLAVOURS)
        raise BadConfig("upstreams", f"{name}: expected KIND+http(s)://host:port with KIND of {kinds}, found {place!r}")
    return url.rstrip("/").removesuffix("/v1"), FLAVOURS[flavour]


def _price(name: str, text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e9:
        raise BadConfig("upstream_prices", f"{name}: expected US dollars for a million tokens, found {text!r}")
    return price


async def _watch(fleet: Fleet, upstream: Upstream) -> None:
    while True:
        await fleet.clock.sleep(REFRESH_S)
        await _refresh(fleet, upstream)


async def _refresh(fleet: Fleet, upstream: Upstream) -> None:
    config = upstream.config
    name = f"upstream:{config.name}"
    try:
        models = await upstream.models()
    except ShoalError as error:
        _log.warning("upstream %s is not used: %s", config.name, error)
        fleet.upstreams.pop(name, None)
        return
    cards = tuple(ModelCard(model, owned_by=config.name, capabilities=("completion", "chat")) for model in models)
    fleet.upstreams[name] = Provider(
        name,
        "upstream",
        upstream.generate,
        cards,
        price_usd_per_mtok=config.price_usd_per_mtok,
        resumes="text" if config.flavour in CONTINUES else "no",
    )


async def _no_tokens(model: str, tokens: Sequence[int]) -> str:
    raise ModelNotFound(model)


async def _no_vectors(model: str, inputs: Sequence[str | tuple[int, ...]]) -> tuple[np.ndarray, int]:
    raise ModelNotFound(model)


async def _no_adapter(name: str, path: str) -> ModelCard:
    raise ModelNotFound(name)


async def _nothing_to_unload(name: str) -> None:
    raise ModelNotFound(name)


async def _no_answer(model: str, text: str | tuple[Message, ...], add_special: bool) -> list[int]:
    raise ModelNotFound(model)


def _nobody(request: Request) -> AsyncIterator[Chunk]:
    raise ModelNotFound(request.model)


_NOTHING = Service(
    generate=_nobody,
    models=tuple,
    stats=EngineStats,
    not_ready=lambda: None,
    tokenize=_no_answer,
    detokenize=_no_tokens,
    embed=_no_vectors,
    load_adapter=_no_adapter,
    unload_adapter=_nothing_to_unload,
)
"""The service of a node without a model of its own; `generate` is replaced by the router."""
