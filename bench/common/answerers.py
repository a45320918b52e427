"""Engines that answer honestly in several arithmetics, and engines that cheat, for the benchmark of checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from shoal.core.receipt import ModelIdentity
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.engine.runner import Runner
from shoal.kernels.quant import dequantize, quantize_q4_0, quantize_q8_0
from shoal.models.checkpoint import Checkpoint
from shoal.models.names import expected_shapes
from shoal.models.native_runner import NativeRunner
from shoal.models.template import ChatTemplate
from shoal.models.tensors import Tensor
from shoal.models.tokenizer import load_tokenizer
from shoal.trust.check_rerun import Question, Rerunner, sampler_state
from shoal.trust.fingerprint import fingerprint

BLOCKS = 2048
"""Of sixteen positions each: 48 answers at once."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a machine computes: kernels by instruction set or torch by type, bits of activations, cache format."""

    isa: str = ""
    torch: str = ""
    bits: int = 8
    kv: str = "f16"

    def runner(self, checkpoint: Checkpoint) -> Runner:
        if self.torch:
            from shoal.models.torch_runner import TorchRunner

            return TorchRunner(checkpoint, num_blocks=BLOCKS, dtype=self.torch)  # type: ignore[arg-type]
        return NativeRunner(
            checkpoint, num_blocks=BLOCKS, kv_type=self.kv, activation_bits=self.bits, isa=self.isa or None, threads=2
        )  # type: ignore[arg-type]

    def identity(self, checkpoint: Checkpoint | None) -> ModelIdentity:
        """As receipts say it (`node.compose`)."""
        kernels, kv = f"native-{self.isa}, {self.bits}-bit activations", self.kv
        if self.torch:
            kernels, kv = "torch", {"float32": "f32", "bfloat16": "bf16"}[self.torch]
        name, quantization = (checkpoint.name, checkpoint.quantization) if checkpoint else ("", "")
        return ModelIdentity(name, b"", quantization, b"", "cpu", kernels, kv)


@dataclass(frozen=True, slots=True)
class Machine:
    """An engine, and the same engine as a rerunner."""

    engine: Engine
    rerunner: Rerunner


@asynccontextmanager
async def machine(checkpoint: Checkpoint, arithmetic: Arithmetic) -> AsyncIterator[Machine]:
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    template = ChatTemplate(checkpoint.chat_template or "", tokenizer, native_tools=False)
    runner = arithmetic.runner(checkpoint)
    scheduler = SchedulerConfig(block_size=16, num_blocks=BLOCKS, max_running=32, prefix_cache=True)
    config = EngineConfig("m", checkpoint.config.context_length, checkpoint.config.num_layers, scheduler)
    language = Language(tokenizer, template)
    engine = Engine(config, runner, language, take=fingerprint)
    state: Callable[[Question], Any] = partial(sampler_state, tokenizer.vocab_size, tokenizer.eos_ids)
    identity, session = arithmetic.identity(checkpoint), partial(engine.session, None, 9)
    try:
        yield Machine(engine, Rerunner(identity, config.num_layers, session, language.prompt, state))
    finally:
        await engine.stop()


# ---- models that are not the one named -------------------------------------------------------------------------


def requantised(checkpoint: Checkpoint, change: Callable[[np.ndarray], np.ndarray]) -> Checkpoint:
    """Every matrix through `change` (float (rows, columns) to the same), kept as Q8_0, which adds next to nothing."""
    weights = {name: _changed(tensor, change) for name, tensor in checkpoint.weights.items()}
    return replace(checkpoint, weights=weights)


def _changed(tensor: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    if len(tensor.shape) == 1:
        return tensor
    values = change(dequantize(tensor.storage, tensor.data, tensor.shape[-1]))
    return Tensor(tensor.name, tensor.shape, "Q8_0", quantize_q8_0(values))


def levels(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Blocks of 32 from their minimum to their maximum in `count` steps: 8 are three bits, 4 are two."""

    def change(values: np.ndarray) -> np.ndarray:
        blocks = values.reshape(-1, 32)
        low = blocks.min(axis=1, keepdims=True)
        step = np.maximum(blocks.max(axis=1, keepdims=True) - low, 1e-12) / (count - 1)
        return np.asarray((np.rint((blocks - low) / step) * step + low).reshape(values.shape), np.float32)

    return change


def q4_0(values: np.ndarray) -> np.ndarray:
    return dequantize("Q4_0", quantize_q4_0(values), values.shape[-1])


def without_layers(checkpoint: Checkpoint, keep: list[int]) -> Checkpoint:
    """Only these layers, in order: a network cut short, or one that leaves early."""
    config = checkpoint.config
    fewer = replace(
        config,
        num_layers=len(keep),
        ropes=tuple(config.ropes[layer] for layer in keep),
        windows=tuple(config.windows[layer] for layer in keep),
    )
    names: Mapping[str, tuple[int, ...]] = expected_shapes(fewer)
    return replace(checkpoint, config=fewer, weights={name: _moved(checkpoint, name, keep) for name in names})


def _moved(checkpoint: Checkpoint, name: str, keep: list[int]) -> Tensor:
    if not name.startswith("blk."):
        return checkpoint.weights[name]
    _, number, rest = name.split(".", 2)
    return replace(checkpoint.weights[f"blk.{keep[int(number)]}.{rest}"], name=name)


def cheating_models(checkpoint: Checkpoint) -> dict[str, Callable[[], Checkpoint]]:
    """What may be run in place of the model named, made when asked for."""
    layers = list(range(checkpoint.config.num_layers))
    half = layers[: len(layers) // 4] + layers[-len(layers) // 4 :]
    return {
        "4 bits of another format": lambda: requantised(checkpoint, q4_0),
        "6 bits, made of 4": lambda: requantised(checkpoint, levels(64)),
        "5 bits, made of 4": lambda: requantised(checkpoint, levels(32)),
        "3 bits": lambda: requantised(checkpoint, levels(8)),
        "2 bits": lambda: requantised(checkpoint, levels(4)),
        "last layer left out": lambda: without_layers(checkpoint, layers[:-1]),
        "exit two layers early": lambda: without_layers(checkpoint, layers[:-2]),
        "exit a sixth early": lambda: without_layers(checkpoint, layers[: -len(layers) // 6]),
        "one middle layer left out": lambda: without_layers(
            checkpoint, [layer for layer in layers if layer != len(layers) // 2]
        ),
        "half the layers": lambda: without_layers(checkpoint, half),
    }
