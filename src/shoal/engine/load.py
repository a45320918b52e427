"""From a checkpoint and options to a runner on the best device and kernels there are, with a cache that fits.

"auto" never fails where something slower works: CUDA if a GPU and torch are here, else the C kernels, else torch on the
CPU. Anything named outright is used or refused.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shoal.core.errors import BadConfig, Unsupported
from shoal.engine.runner import Runner
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import ModelConfig

_log = logging.getLogger(__name__)

Kernels = Literal["auto", "native", "torch"]

MAX_SHARE_OF_MEMORY = 0.25
"""Of what is free: what the cache may grow to where nothing else is said. Pages are taken only as they fill."""

SOFT_BYTES = 256 * 2**20
"""The cache grows to this, or to one whole context, before it evicts prefixes nobody uses: some 10,000 tokens of a
small model. Beyond it grows only for what runs (`block_pool`), so a server that is merely old stays small."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Sizes are bytes, lengths are tokens; None: chosen here.

    context_length  longest sequence; the model's own at most.
    kv_type         of the cache; only the C kernels have a choice, theirs is f16 where nothing is said.
    activation_bits what quantised products see of an activation; only the C kernels have a choice: 8 (as llama.cpp,
                    the fastest, and theirs where nothing is said) or 16 (as good as float32).
    kv_memory       of keys and values together, all used before anything is evicted; None: room for `max_running` full
                    contexts, at most a quarter of the free memory, and at least one context, filled beyond SOFT_BYTES
                    only when needed.
    num_blocks      of the cache, where somebody else's cache has to have as many; None: as `kv_memory` says.
    """

    device: str = "auto"
    kernels: Kernels = "auto"
    threads: int | None = None
    context_length: int | None = None
    block_size: int = 16
    kv_type: Literal["f32", "f16", "int8"] | None = None
    activation_bits: Literal[8, 16] | None = None
    kv_memory: int | None = None
    num_blocks: int | None = None
    max_running: int = 32
    max_adapters: int = 8
    kernel_cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A runner and what to tell people of it; `soft_blocks` for the scheduler."""

    runner: Runner
    context_length: int
    device: str
    kernels: str
    soft_blocks: int = 0


def load_runner(checkpoint: Checkpoint, options: RunnerOptions) -> Loaded:
    """BadConfig for options that cannot work, Unsupported for what this machine cannot do."""
    context = context_length(checkpoint.config, options.context_length)
    device = find_device(options)
    if device != "cpu" or options.kernels == "torch":
        return _torch(checkpoint, options, device, context)
    try:
        return _native(checkpoint, options, context)
    except Unsupported as error:
        if options.kernels == "native":
            raise
        _require_torch(f"the C kernels cannot be used ({error}), and torch is not installed")
        _log.warning("running on torch, which is slower: %s", error)
        return _torch(checkpoint, options, device, context)


def context_length(config: ModelConfig, wanted: int | None) -> int:
    """The longest sequence to serve. BadConfig beyond what the model was made for."""
    if wanted is None:
        return config.context_length
    if not 0 < wanted <= config.context_length:
        raise BadConfig("context_length", f"expected at most the model's {config.context_length}, found {wanted}")
    return wanted


def block_bytes(config: ModelConfig, options: RunnerOptions, head_bytes: int) -> int:
    """Keys and values of one block in every layer. head_bytes: of the key, or the value, of one position and head."""
    return 2 * config.num_layers * config.num_kv_heads * head_bytes * options.block_size


def soft_blocks(config: ModelConfig, options: RunnerOptions, context: int, head_bytes: int) -> int:
    """Blocks to fill before any is evicted; 0, which is all, where `kv_memory` says how much memory to use."""
    if options.kv_memory is not None or options.num_blocks is not None:
        return 0
    return max(SOFT_BYTES // block_bytes(config, options, head_bytes), -(-context // options.block_size))


def num_blocks(config: ModelConfig, options: RunnerOptions, context: int, head_bytes: int) -> int:
    """Blocks of the cache. BadConfig where `kv_memory` does not hold a single context."""
    if options.num_blocks is not None:
        return options.num_blocks
    per_block = block_bytes(config, options, head_bytes)
    one_context = -(-context // options.block_size)
    if options.kv_memory is not None:
        blocks = options.kv_memory // per_block
        if blocks < one_context:
            raise BadConfig(
                "kv_memory",
                f"expected at least {one_context * per_block} bytes for one context of {context} tokens, "
                f"found {options.kv_memory}; give more, or a smaller context_length",
            )
        return blocks
    share = int(_free_memory() * MAX_SHARE_OF_MEMORY) // per_block
    return max(one_context, min(options.max_running * one_context, share))


def find_device(options: RunnerOptions) -> str:
    """ "cpu" or "cuda": what was asked for, or CUDA where a GPU, its driver and torch are."""
    if options.device != "auto":
        return options.device
    if options.kernels == "native" or not Path("/dev/nvidiactl").exists() or not _has_torch():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _native(checkpoint: Checkpoint, options: RunnerOptions, context: int) -> Loaded:
    from shoal.kernels.executor import head_bytes
    from shoal.models.native_runner import NativeRunner

    kv_type = options.kv_type or "f16"
    size = head_bytes(kv_type, checkpoint.config.head_dim)
    runner = NativeRunner(
        checkpoint,
        num_blocks=num_blocks(checkpoint.config, options, context, size),
        block_size=options.block_size,
        threads=options.threads,
        kv_type=kv_type,
        activation_bits=options.activation_bits or 8,
        max_adapters=options.max_adapters,
        kernel_cache=options.kernel_cache,
    )
    soft = soft_blocks(checkpoint.config, options, context, size)
    return Loaded(runner, context, "cpu", runner.kernels, soft)


def _torch(checkpoint: Checkpoint, options: RunnerOptions, device: str, context: int) -> Loaded:
    _require_torch("this needs torch, which is not installed")
    for key, value in (("kv_type", options.kv_type), ("activation_bits", options.activation_bits)):
        if value is not None:
            raise BadConfig(key, f"expected nothing, since torch computes ({device}) and has no choice; found {value}")
    import torch

    from shoal.models.torch_runner import TorchRunner

    if options.threads is not None and device == "cpu":
        torch.set_num_threads(options.threads)
    element_bytes = 4 if device == "cpu" else 2
    runner = TorchRunner(
        checkpoint,
        device=device,
        block_size=options.block_size,
        num_blocks=num_blocks(checkpoint.config, options, context, element_bytes * checkpoint.config.head_dim),
        max_adapters=options.max_adapters,
    )
    return Loaded(runner, context, device, "torch")


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _require_torch(problem: str) -> None:
    if not _has_torch():
        raise Unsupported(f"{problem}; install a C compiler, or torch with `pip install 'shoal[torch]'`")


def _free_memory() -> int:
    """Bytes the system could give without swapping, as far as it says."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 << 30
