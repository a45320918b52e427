"""The one place where a node is put together: weights, runner, language, engine, and the `Service` a server takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.core.errors import InvalidRequest, ModelNotFound
from shoal.core.receipt import ModelIdentity
from shoal.core.request import Message, Request, Sampling
from shoal.core.seams import Generate
from shoal.core.service import ModelCard, Service
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.load import RunnerOptions, load_runner
from shoal.engine.plan import SchedulerConfig
from shoal.meter.metered import metered
from shoal.models.catalogue import default_name, find, parse_source
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.store import Store
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import load_tokenizer
from shoal.models.tools import ToolFormat
from shoal.node.config import NodeConfig
from shoal.node.drafting import Target, make_drafter, split_kv_memory
from shoal.node.metering import Metering
from shoal.node.model_identity import ModelIdentities
from shoal.trust.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Node:
    """A running node: what its server takes, the engine behind it, and what that computes with."""

    service: Service
    engine: Engine
    identities: ModelIdentities
    language: Language


@asynccontextmanager
async def compose(config: NodeConfig) -> AsyncIterator[Node]:
    """Load everything `config` names; at the end let running answers finish. Raises what the parts raise."""
    path = Store(config.home).resolve(config.model)
    engine, language, card = await asyncio.to_thread(_load, config, path)
    identities = ModelIdentities(path, _identity(config, engine.config, card))
    try:
        metering = Metering(config, asyncio.get_running_loop().call_later)
        parts = _Parts(engine, language, card, identities)
        for name, folder in config.adapters:
            await parts.load_adapter(name, folder)
        try:
            yield Node(parts.service(metered(engine.generate, metering.meter)), engine, identities, language)
        finally:
            metering.close()
    finally:
        await engine.stop()


def _load(config: NodeConfig, path: Path) -> tuple[Engine, Language, ModelCard]:
    checkpoint = open_checkpoint(path)
    kv_memory, draft_kv_memory = split_kv_memory(config, checkpoint.config)
    options = replace(runner_options(config), kv_memory=kv_memory)
    with ThreadPoolExecutor(1) as aside:  # weights are packed by C, which leaves the interpreter to the tokenizer
        loading = aside.submit(load_runner, checkpoint, options)
        try:
            language = language_of(checkpoint)
        except BaseException:
            loading.result().runner.close()
            raise
        loaded = loading.result()
    name = model_name(config.model)
    scheduler = SchedulerConfig(
        block_size=loaded.runner.block_size,
        num_blocks=loaded.runner.num_blocks,
        max_batch_tokens=config.max_batch_tokens,
        max_running=config.max_running,
        max_waiting=config.max_waiting,
        prefill_chunk=config.max_batch_tokens,
        max_outputs=max(256, config.max_running),
        prefix_cache=config.prefix_cache,
        soft_blocks=loaded.soft_blocks,
    )
    engine_config = EngineConfig(
        name, loaded.context_length, checkpoint.config.num_layers, scheduler, loaded.device, loaded.kernels
    )
    target_id = f"{name}:{checkpoint.size_bytes}:{checkpoint.quantization}"
    drafter = make_drafter(config, Target(name, target_id, language.tokenizer, loaded, options, draft_kv_memory))
    engine = Engine(engine_config, loaded.runner, language, drafter=drafter, take=fingerprint)
    return engine, language, _card(name, checkpoint, loaded.context_length)


def language_of(checkpoint: Checkpoint) -> Language:
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    if checkpoint.chat_template is None:
        return Language(tokenizer, None)
    tools = ToolFormat.detect(checkpoint.chat_template, tokenizer)
    template = ChatTemplate(checkpoint.chat_template, tokenizer, native_tools=tools.kind != "generic")
    return Language(tokenizer, template, tools)


def runner_options(config: NodeConfig) -> RunnerOptions:
    return RunnerOptions(
        device=config.device,
        kernels=config.kernels,
        threads=config.threads,
        context_length=config.context_length,
        block_size=config.block_size,
        kv_type=config.kv_type,
        activation_bits=config.activation_bits,
        max_running=config.max_running,
        kernel_cache=config.home / "kernels",
    )


def model_name(model: str) -> str:
    """What requests call it: the catalogue's or the store's name, else that of the file."""
    entry = find(model)
    if entry is not None:
        return entry.name
    path = Path(model).expanduser()
    return default_name(model, parse_source(model)) if path.exists() else model


def _identity(config: NodeConfig, engine: EngineConfig, card: ModelCard) -> ModelIdentity:
    """What computes, without the weights' hash."""
    kernels, kv = engine.kernels, "f32" if engine.device == "cpu" else "bf16"
    if kernels != "torch":
        kernels, kv = f"{kernels}, {config.activation_bits or 8}-bit activations", config.kv_type or "f16"
    return ModelIdentity(card.id, b"", card.quantization or "", b"", engine.device, kernels, kv)


def _card(name: str, checkpoint: Checkpoint, context_length: int) -> ModelCard:
    has_chat = checkpoint.chat_template is not None
    return ModelCard(
        id=name,
        created=int(time.time()),
        context_length=context_length,
        family=checkpoint.config.family,
        quantization=checkpoint.quantization,
        size_bytes=checkpoint.size_bytes,
        capabilities=("completion", "embedding", *(("chat", "tools") if has_chat else ())),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """One model's engine and language, as the callables of a `Service`."""

    engine: Engine
    language: Language
    card: ModelCard
    identities: ModelIdentities

    def service(self, generate: Generate) -> Service:
        return Service(
            generate=generate,
            models=self.models,
            stats=self.engine.stats,
            not_ready=self.engine.not_ready,
            tokenize=self.tokenize,
            detokenize=self.detokenize,
            embed=self.embed,
            load_adapter=self.load_adapter,
            unload_adapter=self.engine.unload_adapter,
        )

    def models(self) -> Sequence[ModelCard]:
        return (self.card, *(self._adapter_card(name) for name in self.engine.adapters))

    async def tokenize(self, model: str, text: str | tuple[Message, ...], add_special: bool) -> list[int]:
        self._check(model)
        if isinstance(text, str):
            return await asyncio.to_thread(self.language.tokenizer.encode, text, add_special=add_special)
        request = Request("tokenize", model, text, Sampling())
        return await asyncio.to_thread(self.language.prompt, request)

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        self._check(model)
        tokenizer = self.language.tokenizer
        if bad := [token for token in tokens if not 0 <= token < tokenizer.vocab_size]:
            raise InvalidRequest(f"expected token ids below {tokenizer.vocab_size}, found {bad[0]}", "tokens")
        return tokenizer.decode(tokens, skip_special=False)

    async def embed(self, model: str, inputs: Sequence[str | tuple[int, ...]]) -> tuple[np.ndarray, int]:
        self._check(model)
        return await self.engine.embed(inputs)

    async def load_adapter(self, name: str, path: str) -> ModelCard:
        await self.engine.load_adapter(name, path)
        await asyncio.to_thread(self.identities.note_adapter, name, path)
        return self._adapter_card(name)

    def _adapter_card(self, name: str) -> ModelCard:
        card = self.card
        return ModelCard(
            id=name,
            created=card.created,
            parent=card.id,
            context_length=card.context_length,
            family=card.family,
            quantization=card.quantization,
            capabilities=tuple(item for item in card.capabilities if item != "embedding"),
        )

    def _check(self, model: str) -> None:
        if model not in (names := tuple(card.id for card in self.models())):
            raise ModelNotFound(model, names)
