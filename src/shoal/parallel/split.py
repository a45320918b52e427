"""A model split over this machine and its peers: the two ends loaded here, a chain of stages for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from shoal.core.clock import Clock
from shoal.core.errors import BadConfig, LocalError, ShoalError
from shoal.engine.drafts.draft import Drafter
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.load import Loaded, RunnerOptions, load_runner
from shoal.engine.plan import SchedulerConfig
from shoal.mesh.calls import Caller, CallOptions
from shoal.mesh.peer_id import PeerId
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import Part
from shoal.models.part import part_of
from shoal.parallel.chain import Offer, choose_chain
from shoal.parallel.frames import MAX_ROWS, OFFERS, Open, StageInfo, read_offers
from shoal.parallel.hop import Hop, open_hop
from shoal.parallel.noise import Noise
from shoal.parallel.pipeline import PipelineRunner
from shoal.parallel.private import Pipeline
from shoal.parallel.stage import Stage

OFFER_S = 5.0
CONTEXTS = 2
"""Whole contexts in the caches of a split model: a conversation, and another."""
RUNNING = 8


@dataclass(frozen=True, slots=True)
class Split:
    """What is kept here. `digest` of the weights file (SHA-256), `noise` in units of a row's root mean square."""

    name: str
    checkpoint: Checkpoint
    digest: bytes
    keep_first: int
    keep_last: int
    noise: float = 0.0

    def __post_init__(self) -> None:
        layers = self.checkpoint.config.num_layers
        if self.keep_first < 1 or self.keep_last < 1 or self.keep_first + self.keep_last >= layers:
            raise BadConfig(
                "split",
                f"expected at least one layer at each end and fewer than {layers} in all, "
                f"found {self.keep_first} and {self.keep_last}",
            )

    @property
    def middle(self) -> tuple[int, int]:
        """Layers that peers compute, [first, last)."""
        return self.keep_first, self.checkpoint.config.num_layers - self.keep_last


@dataclass(frozen=True, slots=True)
class Place:
    """How peers are asked, and what computes here.

    drafter  makes what guesses tokens ahead: a guess that is right saves a round trip to every hop.
    """

    caller: Caller
    offers: Callable[[], Awaitable[Sequence[Offer]]]
    clock: Clock
    options: RunnerOptions
    drafter: Callable[[], Drafter | None] = lambda: None


def open_stage(
    checkpoint: Checkpoint, name: str, digest: bytes, layers: tuple[int, int], options: RunnerOptions
) -> Stage:
    """Load layers [first, last) of a whole checkpoint to serve them. Raises what loading raises."""
    first, last = layers
    loaded = load_runner(part_of(checkpoint, Part(first, last)), options)
    config = checkpoint.config
    info = StageInfo(
        name, digest, first, last, config.num_layers, config.hidden_size, loaded.runner.block_size,
        loaded.context_length, _how(loaded, options),
    )  # fmt: skip
    return Stage(info, loaded.runner)


def _how(loaded: Loaded, options: RunnerOptions) -> str:
    """What has to be alike for answers to be exact."""
    if loaded.kernels == "torch":
        return f"torch on {loaded.device}"
    return f"{loaded.kernels}, {options.activation_bits or 8}-bit activations, {options.kv_type or 'f16'} cache"


async def ask_offers(caller: Caller, peers: Sequence[PeerId]) -> tuple[Offer, ...]:
    """What stages these peers serve; those that do not say are left out."""

    async def one(peer: PeerId) -> list[Offer]:
        try:
            answer = await caller.call(peer, OFFERS, b"", CallOptions(timeout_s=OFFER_S, connect_s=OFFER_S))
            return [Offer(peer, info) for info in read_offers(answer)]
        except ShoalError:
            return []

    return tuple(offer for offers in await asyncio.gather(*map(one, peers)) for offer in offers)


@asynccontextmanager
async def connected(split: Split, place: Place, language: Language) -> AsyncIterator[Pipeline]:
    """An engine over the ends here and a chain of peers, for as long as this is open.

    Unreachable where no chain of stages is there; else what opening a session or loading raises.
    """
    chain = choose_chain(await place.offers(), split.digest, *split.middle)
    options = _options(split, place.options, [offer.info for offer in chain])
    async with AsyncExitStack() as stack:
        hops = tuple([await stack.enter_async_context(_hop(split, place, offer, options)) for offer in chain])
        front, back = await asyncio.to_thread(_ends, split, options)
        noise = Noise(split.noise) if split.noise else None
        runner = PipelineRunner(front.runner, hops, back.runner, noise)
        engine = Engine(_engine_config(split, options, front), runner, language, place.clock, place.drafter())
        try:
            yield Pipeline(engine, hops)
        finally:
            for hop in hops:  # a step that waits on a peer would be waited for
                hop.abort(LocalError("the split model was closed"))
            await engine.stop()


def _hop(split: Split, place: Place, offer: Offer, options: RunnerOptions) -> AbstractAsyncContextManager[Hop]:
    wish = Open(split.digest, offer.info.first, offer.info.last, options.num_blocks or 1)
    return open_hop(place.caller, offer.peer, wish, place.clock)


def _options(split: Split, options: RunnerOptions, infos: Sequence[StageInfo]) -> RunnerOptions:
    """The same blocks everywhere. BadConfig for stages whose blocks are of several sizes."""
    sizes = {info.block_size for info in infos}
    if len(sizes) != 1:
        raise BadConfig("block_size", f"the peers' stages have blocks of {sorted(sizes)} tokens; one size is needed")
    block_size = sizes.pop()
    limits = [info.context_length for info in infos]
    context = min(*limits, options.context_length or split.checkpoint.config.context_length)
    return replace(
        options, block_size=block_size, context_length=context, kv_memory=None,
        num_blocks=CONTEXTS * -(-context // block_size), max_adapters=1,
    )  # fmt: skip


def _ends(split: Split, options: RunnerOptions) -> tuple[Loaded, Loaded]:
    first, last = split.middle
    layers = split.checkpoint.config.num_layers
    front = load_runner(part_of(split.checkpoint, Part(0, first, has_embedding=True)), options)
    try:
        return front, load_runner(part_of(split.checkpoint, Part(last, layers, has_head=True)), options)
    except BaseException:
        front.runner.close()
        raise


def _engine_config(split: Split, options: RunnerOptions, front: Loaded) -> EngineConfig:
    scheduler = SchedulerConfig(
        block_size=options.block_size,
        num_blocks=options.num_blocks or 1,
        max_batch_tokens=min(512, MAX_ROWS),
        max_running=RUNNING,
    )
    layers = split.checkpoint.config.num_layers
    return EngineConfig(split.name, front.context_length, layers, scheduler, front.device, front.kernels)
