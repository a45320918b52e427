"""Layers of models among peers: those computed here for others (`share_layers`), models split over them (`split`)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from shoal.core.clock import Clock
from shoal.core.errors import BadConfig
from shoal.core.service import ModelCard
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.load import find_device
from shoal.fleet.accounts import Accounts
from shoal.fleet.provider import Provider
from shoal.mesh.peer_id import PeerId
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.digest import hash_weights
from shoal.models.store import Store
from shoal.node.compose import language_of, model_name, runner_options
from shoal.node.config import NodeConfig
from shoal.node.fleet import Fleet
from shoal.node.meshing import Mesh
from shoal.node.terminal import say
from shoal.parallel.chain import Offer
from shoal.parallel.host import StageHost
from shoal.parallel.private import PrivateModel
from shoal.parallel.split import Place, Split, ask_offers, connected, open_stage
from shoal.parallel.stage import Stage

PREFIX = "private:"
KEPT_FIRST, KEPT_LAST = 8, 1
"""Where nothing else is said; chosen by the table of docs/private-splits.md."""
MAX_ASKED = 64
"""Peers asked for their stages when a split model is connected."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A model and two numbers of an option's text."""

    model: str
    first: int
    second: int


def parse_layers(text: str) -> Wish:
    """MODEL:FIRST-END. BadConfig."""
    return _parse("share_layers", text, r"(.+):([0-9]+)-([0-9]+)", "MODEL:FIRST-END, such as smollm2-135m:8-29")


def parse_split(text: str) -> Wish:
    """MODEL or MODEL:A+B. BadConfig."""
    if not re.search(r":[0-9]+\+[0-9]+$", text):
        return Wish(text, KEPT_FIRST, KEPT_LAST)
    return _parse("split", text, r"(.+):([0-9]+)\+([0-9]+)", "MODEL:A+B, such as smollm2-135m:8+1")


def wished_models(config: NodeConfig) -> tuple[str, ...]:
    """Models that are needed here besides `config.model`. BadConfig."""
    wishes = [*map(parse_layers, config.share_layers), *map(parse_split, config.split)]
    return tuple(dict.fromkeys(wish.model for wish in wishes))


def check_layers(config: NodeConfig, is_in_mesh: bool) -> None:
    """What can be wrong is said before anything is loaded. BadConfig."""
    wished_models(config)
    if config.share_layers and not (config.share or config.serve_peers):
        raise BadConfig("share_layers", "computing for peers needs --share or --serve-peer")
    if config.split and not is_in_mesh:
        raise BadConfig("split", "the other layers are at peers: join a mesh with --ticket, or begin one with --share")


@asynccontextmanager
async def layers_among_peers(config: NodeConfig, mesh: Mesh, fleet: Fleet, clock: Clock) -> AsyncIterator[None]:
    """Serve and use layers for as long as this is open. Raises what loading raises."""
    async with AsyncExitStack() as stack:
        if config.share_layers:
            await stack.enter_async_context(_serving(config, mesh, clock))
        for text in config.split:
            await stack.enter_async_context(_split(config, parse_split(text), mesh, fleet, clock))
        yield


@asynccontextmanager
async def _serving(config: NodeConfig, mesh: Mesh, clock: Clock) -> AsyncIterator[None]:
    stages = [await asyncio.to_thread(_stage, config, parse_layers(text)) for text in config.share_layers]
    accounts, is_swarm = mesh.accounts, mesh.parts.place.secret is not None
    consent = partial(_consent, accounts, is_swarm)
    host = StageHost(stages, consent, clock, partial(_charge, accounts, clock))
    host.register(mesh.parts.rpc)
    for stage in stages:
        say(f"computing layers {stage.info.first} to {stage.info.last} of {stage.info.model} for peers")
    try:
        yield
    finally:
        await host.close()


@asynccontextmanager
async def _split(config: NodeConfig, wish: Wish, mesh: Mesh, fleet: Fleet, clock: Clock) -> AsyncIterator[None]:
    name, checkpoint, digest = await asyncio.to_thread(_opened, config, wish.model)
    split = Split(PREFIX + name, checkpoint, digest, wish.first, wish.second)
    drafter = partial(_drafter, config)
    place = Place(mesh.parts.rpc, partial(_offers, mesh), clock, runner_options(config), drafter)
    language = await asyncio.to_thread(language_of, checkpoint)
    private = PrivateModel(lambda: connected(split, place, language), clock)
    card = ModelCard(split.name, context_length=checkpoint.config.context_length, capabilities=_can(checkpoint))
    fleet.upstreams[split.name] = Provider(split.name, "upstream", private.generate, (card,), resumes="no")
    say(
        f"{split.name}: layers {split.middle[0]} to {split.middle[1]} at peers, who can read much of a prompt from them"
    )
    try:
        yield
    finally:
        del fleet.upstreams[split.name]
        await private.close()


def _drafter(config: NodeConfig) -> LookupDrafter | None:
    """Guesses from the text so far, whatever way is configured: other ways keep memory of a model of their own.

    None on torch, whose results depend in their last bits on which rows share a step.
    """
    is_native = config.kernels != "torch" and find_device(runner_options(config)) == "cpu"
    return LookupDrafter() if is_native and config.draft != "off" else None


def _consent(accounts: Accounts, is_member: bool, peer: PeerId) -> None:
    accounts.check_consent(peer, is_member)


def _charge(accounts: Accounts, clock: Clock, peer: PeerId, num_tokens: float) -> float:
    """Counted with what the peer's requests take; beyond its rate it waits until the minute has room again."""
    accounts.settle(peer, max(1, round(num_tokens)), clock.monotonic(), seats=0)
    account = accounts.get(peer)
    return 0.0 if account is None else max(0.0, -account.budget / accounts.limits.tokens_per_minute * 60.0)


def _stage(config: NodeConfig, wish: Wish) -> Stage:
    name, checkpoint, digest = _opened(config, wish.model)
    return open_stage(checkpoint, name, digest, (wish.first, wish.second), runner_options(config))


def _opened(config: NodeConfig, model: str) -> tuple[str, Checkpoint, bytes]:
    path = Store(config.home).resolve(model)
    return model_name(model), open_checkpoint(path), bytes.fromhex(hash_weights(path))


async def _offers(mesh: Mesh) -> Sequence[Offer]:
    return await ask_offers(mesh.parts.rpc, _present(mesh)[:MAX_ASKED])


def _present(mesh: Mesh) -> list[PeerId]:
    members = mesh.parts.gossip.members()
    return [member.peer for member in members if member.is_present and member.peer != mesh.parts.me]


def _can(checkpoint: Checkpoint) -> tuple[str, ...]:
    return ("completion", *(("chat", "tools") if checkpoint.chat_template is not None else ()))


def _parse(key: str, text: str, pattern: str, expected: str) -> Wish:
    match = re.fullmatch(pattern, text)
    if match is None or len(match[2]) > 5 or len(match[3]) > 5:
        raise BadConfig(key, f"expected {expected}, found {text!r:.100}")
    return Wish(match[1], int(match[2]), int(match[3]))
