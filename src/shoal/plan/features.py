"""What is known of a task before it runs, as numbers: logarithms (base 2, of 1 + n) of counts, and shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shoal.plan.table import Features

GRAM = 3
VECTOR_BYTES = {"avx512vnni": 64, "avxvnni": 32, "avx2": 32, "neon": 16, "scalar": 4}
"""Bytes one instruction of the C kernels' inner product takes."""


def of_request(prompt: Sequence[int], max_tokens: int, running: int, cached_tokens: int) -> dict[str, float]:
    """prompt: its token ids; running: requests computed at once, this one included; cached_tokens: of the prompt,
    known to the prefix cache."""
    return {
        "prompt_tokens": _log(len(prompt)),
        "max_tokens": _log(max_tokens),
        "running": _log(running),
        "cached_share": cached_tokens / len(prompt) if prompt else 0.0,
        "repetition": repetition(prompt),
    }


def of_hardware(threads: int, kernels: str, activation_bits: int) -> dict[str, float]:
    """kernels: an instruction set of the C kernels."""
    return {
        "threads": _log(threads),
        "vector_bytes": _log(VECTOR_BYTES.get(kernels, 16)),
        "activation_bits": _log(activation_bits),
    }


def of_model(parameters: int, bytes_of_weights: int) -> dict[str, float]:
    return {"parameters": _log(parameters), "bits_per_weight": _log(8 * bytes_of_weights // max(1, parameters))}


def repetition(tokens: Sequence[int]) -> float:
    """Share of the runs of three tokens that occurred before: near 0 for prose, near 1 for tables and code edits."""
    runs = list(zip(*(tokens[offset:] for offset in range(GRAM)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def mean(tasks: Sequence[Features]) -> dict[str, float]:
    """Features of requests that are treated alike. All must have the same names."""
    return {name: float(np.mean([task[name] for task in tasks])) for name in tasks[0]}


def _log(count: float) -> float:
    return math.log2(1 + count)
