"""Which keys, or which tokens of a prompt, stay. Pure numpy; every tie goes to the earlier position.

Shapes: scores are float (layers, kv heads, keys); what stays is int32 (layers, kv heads, budget), increasing.
"""

from __future__ import annotations

import numpy as np

WINDOW = 32
"""Latest positions that always stay, and whose queries score the others: SnapKV's and SpecKV's."""

POOL = 7
"""Width of the max-pool that lets neighbours of an important key stay with it: SpecKV's code."""

SINKS = 4
"""First positions that StreamingLLM keeps: attention rests on them (arXiv 2309.17453)."""

PROMPT_WINDOW = 64
"""Latest tokens of a prompt that always stay, and whose queries score the others: SpecPC's code."""

PROMPT_POOL = 7


def window_of(budget: int) -> int:
    """Latest positions that stay whatever the scores say: at most half the budget."""
    return min(WINDOW, budget // 2)


def max_pool(scores: np.ndarray, width: int) -> np.ndarray:
    """Largest of the `width` (odd) neighbours around each position, along the last axis."""
    half = width // 2
    padded = np.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(half, half)], constant_values=-np.inf)
    pooled: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1).max(axis=-1)
    return pooled


def keep_by_score(scores: np.ndarray, num_keys: int, budget: int) -> np.ndarray:
    """The window, and the best pooled scores before it (SnapKV, SpecKV). scores: of at least num_keys - window keys."""
    window = window_of(budget)
    before = max_pool(scores[..., : num_keys - window], POOL)
    best = np.sort(np.argsort(-before, axis=-1, kind="stable")[..., : budget - window], axis=-1)
    latest = np.broadcast_to(np.arange(num_keys - window, num_keys), (*best.shape[:-1], window))
    return np.concatenate([best, latest], axis=-1).astype(np.int32)


def keep_ends(shape: tuple[int, int], num_keys: int, budget: int) -> np.ndarray:
    """The first few and the latest (StreamingLLM), the same in every layer and head."""
    kept = np.concatenate([np.arange(SINKS), np.arange(num_keys - budget + SINKS, num_keys)])
    return np.ascontiguousarray(np.broadcast_to(kept, (*shape, budget)), np.int32)


def keep_random(shape: tuple[int, int], num_keys: int, budget: int, seed: int) -> np.ndarray:
    """The window, and any before it, other ones in each layer and head: what choosing well must beat."""
    scores = np.random.default_rng(seed).random((*shape, num_keys))
    window = window_of(budget)
    best = np.sort(np.argsort(-scores[..., : num_keys - window], axis=-1)[..., : budget - window], axis=-1)
    latest = np.broadcast_to(np.arange(num_keys - window, num_keys), (*shape, window))
    return np.concatenate([best, latest], axis=-1).astype(np.int32)


def end_tokens(num_tokens: int, budget: int) -> np.ndarray:
    """Positions of a prompt's first few and latest tokens, int64 (budget,)."""
    return np.concatenate([np.arange(SINKS), np.arange(num_tokens - budget + SINKS, num_tokens)])


def random_tokens(num_tokens: int, budget: int, seed: int) -> np.ndarray:
    """Positions of a prompt's window and any before it, int64 (budget,), increasing."""
    window = min(PROMPT_WINDOW, budget // 2)
    before = np.random.default_rng(seed).permutation(num_tokens - window)[: budget - window]
    return np.concatenate([np.sort(before), np.arange(num_tokens - window, num_tokens)])


def choose_tokens(scores: np.ndarray, budget: int) -> np.ndarray:
    """Positions of a prompt that stay, int64 (budget,), increasing (SpecPC).

    scores  float (tokens,): how much the draft attends to each; pooled here, best first, each with its neighbours
            nearest first, until the budget is full. The window stays whatever the scores say.
    """
    num_tokens, window = len(scores), min(PROMPT_WINDOW, budget // 2)
    chosen = dict.fromkeys(range(num_tokens - window, num_tokens))
    pooled = max_pool(scores, PROMPT_POOL)
    for centre in np.argsort(-pooled, kind="stable").tolist():
        for distance in range(PROMPT_POOL // 2 + 1):
            for position in (centre - distance, centre + distance):
                if len(chosen) < budget and 0 <= position < num_tokens:
                    chosen[position] = None
        if len(chosen) == budget:
            break
    return np.sort(np.fromiter(chosen, np.int64))
