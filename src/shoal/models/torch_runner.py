"""Runs batches with torch: one forward per step for prefill and decode together, over a paged key-value cache.

float32: weights stay as in their file and are dequantised as they are used. bfloat16: matrices are converted once,
norms, rope, softmax and logits stay float32. The CPU's default is the first, CUDA's the second; one code for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from shoal.core.errors import BadConfig, BadWeights, LocalError, Unsupported
from shoal.models.batch import Batch
from shoal.models.lora import Adapter, read_adapter
from shoal.models.part import speak
from shoal.models.torch_attention import PagedCache
from shoal.models.torch_graphs import FixedStep, FixedSteps
from shoal.models.torch_ops import TorchAdapter, TorchOps
from shoal.models.torch_step import Step
from shoal.models.torch_weights import TorchWeights

if TYPE_CHECKING:
    from shoal.models.checkpoint import Checkpoint

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchRunner:
    """A network, its cache and its adapters on one device. Not thread-safe: one caller, one step at a time.

    num_blocks blocks of block_size positions each; adapter slots are 0 .. max_adapters - 1. `dtype` None: the device's.
    has_fixed_steps: plain decode steps in fixed shapes, on CUDA as graphs (see torch_graphs); None: on CUDA.
    Raises BadConfig for a device that is not here, Unsupported for one this code does not run on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16"] | None = None,
        block_size: int = 16,
        num_blocks: int,
        max_adapters: int = 8,
        has_fixed_steps: bool | None = None,
    ) -> None:
        self.block_size, self.num_blocks, self.max_adapters = block_size, num_blocks, max_adapters
        self._config = checkpoint.config
        self._device = _parse_device(device)
        compute = _DTYPES[dtype or ("float32" if self._device.type == "cpu" else "bfloat16")]
        self._weights = TorchWeights(checkpoint.weights, self._device, compute)
        is_fixed = self._device.type == "cuda" if has_fixed_steps is None else has_fixed_steps
        fixed = is_fixed and checkpoint.part is None  # a part's input changes with every step
        slots = num_blocks * block_size
        self._cache = PagedCache(self._config, slots + fixed * block_size, self._device, compute)
        self._fixed = FixedSteps(self._config, slots, block_size, self._device) if fixed else None
        self._checkpoint = checkpoint
        self._adapters: dict[int, TorchAdapter] = {}
        self._taps = np.zeros((0, self.hidden_size), np.float32)

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self._config.hidden_size

    def run(self, batch: Batch) -> np.ndarray:
        """Fill the batch's cache slots and return float32 logits, (output_rows, vocab).

        LocalError for an adapter slot that holds nothing.
        """
        with torch.inference_mode():
            return self._run(batch)

    def _run(self, batch: Batch) -> np.ndarray:
        if self._fixed is not None and (logits := self._fixed.run(batch, self._compute)) is not None:
            self._taps = np.zeros((0, self.hidden_size), np.float32)
            return _to_numpy(logits)
        step = Step(batch, self._config, self.block_size, self._device)
        self._check_adapters(step)
        ops = TorchOps(self._config, self._weights, self._cache, self._adapters, step)
        logits = speak(ops, self._checkpoint)
        tapped = ops.tapped if ops.tapped is not None else torch.zeros((0, self.hidden_size))
        self._taps = _to_numpy(tapped)
        return _to_numpy(logits)

    def _compute(self, step: FixedStep) -> torch.Tensor:
        ops = TorchOps(self._config, self._weights, self._cache, {}, step)
        logits: torch.Tensor = speak(ops, self._checkpoint)
        return logits

    def taps(self) -> np.ndarray:
        """float32 (output_rows, hidden): the residual stream the last batch's `tap_layer` asked for; else no rows."""
        return self._taps

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy (source, target) blocks in every layer, one pair after the other."""
        self._cache.copy_blocks(pairs, self.block_size)

    def read_adapter(self, path: str | Path) -> TorchAdapter:
        """A PEFT folder, on the device; from any thread, also during a step. BadWeights if it does not fit."""
        adapter = read_adapter(path)
        self._check_shapes(adapter, str(path))
        return {name: self._place(adapter, name) for name in adapter.pairs}

    def load_adapter(self, slot: int, adapter: TorchAdapter) -> None:
        """Put what `read_adapter` made into `slot`, replacing what was there, between two steps."""
        if not 0 <= slot < self.max_adapters:
            raise LocalError(f"adapter slot {slot}: expected 0 to {self.max_adapters - 1}")
        self._adapters[slot] = adapter

    def drop_adapter(self, slot: int) -> None:
        """Empty `slot`; harmless if it is empty."""
        self._adapters.pop(slot, None)

    def close(self) -> None:
        """Let go of weights and cache; the runner cannot run afterwards."""
        del self._weights, self._cache, self._fixed
        self._adapters = {}

    def _check_adapters(self, step: Step) -> None:
        missing = [slot for slot in step.adapter_rows if slot not in self._adapters]
        if missing:
            raise LocalError(f"adapter slot {missing[0]} is empty; load_adapter comes first")

    def _check_shapes(self, adapter: Adapter, path: str) -> None:
        for name, (a, b) in adapter.pairs.items():
            if name not in self._weights:
                raise BadWeights(path, name, "a weight this model has", "none of this name")
            found = (b.shape[0], a.shape[1])
            if found != self._weights.shape(name):
                raise BadWeights(path, name, f"(out, in) = {self._weights.shape(name)}", str(found))

    def _place(self, adapter: Adapter, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = adapter.pairs[name]
        to = {"device": self._device, "dtype": self._weights.dtype}
        return torch.from_numpy(a).to(**to), (torch.from_numpy(b) * adapter.scaling).to(**to)


def _parse_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadConfig("device", f'expected "cpu", "cuda" or "cuda:N", found {name!r}') from error
    if device.type not in ("cpu", "cuda"):
        raise Unsupported(f"device {name!r}: this build runs on cpu and cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadConfig("device", f"{name!r} is not here; torch finds {torch.cuda.device_count()} CUDA devices")
    return device


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.cpu().numpy())
