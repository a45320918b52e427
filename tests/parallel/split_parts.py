"""A tiny model split over peers of a `LocalMesh`, and the whole model beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock, SystemClock
from shoal.core.request import Request, Sampling
from shoal.engine.drafts.draft import Drafter
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.load import RunnerOptions, load_runner
from shoal.engine.plan import SchedulerConfig
from shoal.mesh.fakes import LocalMesh, LocalPeer
from shoal.mesh.peer_id import PeerId
from shoal.models.checkpoint import Checkpoint
from shoal.models.template import ChatTemplate
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.parallel.host import StageHost
from shoal.parallel.private import PrivateModel
from shoal.parallel.split import Place, Split, ask_offers, connected, open_stage

DIGEST = b"d" * 32
NAME = "private:tiny"


def checkpoint(layers: int = 6) -> Checkpoint:
    return tiny_checkpoint(shape=TinyShape(num_layers=layers, context_length=256), storage="Q8_0")


def language(model: Checkpoint) -> Language:
    tokenizer = load_tokenizer(model.tokenizer)
    assert model.chat_template is not None
    return Language(tokenizer, ChatTemplate(model.chat_template, tokenizer))


def options(kernels: str = "native") -> RunnerOptions:
    torch = kernels == "torch"
    return RunnerOptions(
        device="cpu", kernels="torch" if torch else "native", threads=None if torch else 1, max_running=4
    )


def everybody(peer: PeerId) -> None:
    """Consent for all."""


@dataclass
class Swarm:
    """`peers` serve `ranges`, one each; `me` asks."""

    ranges: Sequence[tuple[int, int]]
    kernels: str = "native"
    clock: Clock = field(default_factory=SystemClock)
    model: Checkpoint = field(default_factory=checkpoint)
    hosts: list[StageHost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mesh = LocalMesh(self.clock)
        self.me = self.mesh.join()
        self.peers: list[LocalPeer] = [self.mesh.join() for _ in self.ranges]
        for peer, layers in zip(self.peers, self.ranges, strict=True):
            stage = open_stage(self.model, "tiny", DIGEST, layers, options(self.kernels))
            self.hosts.append(StageHost([stage], everybody, self.clock))
            self.hosts[-1].register(peer)

    def private(self, split: Split | None = None, drafter: Callable[[], Drafter | None] = lambda: None) -> PrivateModel:
        place = Place(
            self.me, lambda: ask_offers(self.me, [peer.peer for peer in self.peers]), self.clock, options(self.kernels)
        )
        chosen = split or Split(NAME, self.model, DIGEST, 1, 1)
        place = replace(place, drafter=drafter)
        return PrivateModel(lambda: connected(chosen, place, language(self.model)), self.clock)

    async def close(self) -> None:
        for host in self.hosts:
            await host.close()


@asynccontextmanager
async def whole(model: Checkpoint, kernels: str = "native") -> AsyncIterator[Engine]:
    """All layers in one engine, on the same kernels."""
    loaded = load_runner(model, replace(options(kernels), num_blocks=64))
    scheduler = SchedulerConfig(block_size=16, num_blocks=64, max_running=8)
    config = EngineConfig(NAME, loaded.context_length, model.config.num_layers, scheduler)
    engine = Engine(config, loaded.runner, language(model))
    try:
        yield engine
    finally:
        await engine.stop()


def ask(text: str, seed: int | None = None, tokens: int = 12, n: int = 1) -> Request:
    sampling = Sampling(temperature=0.0 if seed is None else 1.0, seed=seed, max_tokens=tokens, ignore_eos=True)
    return Request(f"ask-{text[:8]}-{seed}", NAME, text, sampling, n=n)


def ids(chunks: Sequence[Chunk], choice: int = 0) -> list[int]:
    return [token for chunk in chunks if chunk.index == choice for token in chunk.token_ids]
