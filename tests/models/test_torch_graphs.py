"""Decode steps of fixed shapes give what steps of any shape give, whatever they are padded with. Graphs need a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from shoal.models.batch import Batch
from shoal.models.config import Family
from shoal.models.forced import Forced, forced_logits, make_batch
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.torch_graphs import LEAST_KEYS, MAX_ROWS, FixedSteps
from shoal.models.torch_runner import TorchRunner

DENSE = [family for family in get_args(Family) if not tiny_checkpoint(family).config.num_experts]


def sequences(lengths: tuple[int, ...]) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(0, 259, length).tolist() for length in lengths]


@pytest.mark.parametrize("family", DENSE)
def test_fixed_steps_equal_free_ones(family: Family) -> None:
    """Prompts of 1 to 60 tokens, then three sequences that decode together, one ending before the others."""
    checkpoint = tiny_checkpoint(family, seed=1)
    runners = [TorchRunner(checkpoint, block_size=4, num_blocks=64, has_fixed_steps=fixed) for fixed in (False, True)]
    schedule = [[1, 30, 57], *[[1, 1, 1]] * 3, *[[1, 0, 0]] * 5]
    free, fixed = (forced_logits(runner, sequences((9, 33, 60)), schedule) for runner in runners)
    for one, other in zip(free, fixed, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert runners[1]._fixed is not None
    assert set(runners[1]._fixed._shapes) == {(4, LEAST_KEYS), (1, LEAST_KEYS)}


def test_longer_contexts_get_larger_shapes() -> None:
    checkpoint = tiny_checkpoint("gemma2", seed=2)
    runners = [TorchRunner(checkpoint, block_size=16, num_blocks=40, has_fixed_steps=fixed) for fixed in (False, True)]
    free, fixed = (
        forced_logits(runner, sequences((LEAST_KEYS + 2,)), [[LEAST_KEYS - 1], [1], [1], [1]]) for runner in runners
    )
    np.testing.assert_allclose(free[0], fixed[0], atol=2e-5)
    assert runners[1]._fixed is not None
    assert set(runners[1]._fixed._shapes) == {(1, LEAST_KEYS), (1, 2 * LEAST_KEYS)}


def decode_batch(count: int) -> Batch:
    return make_batch([Forced(np.array([1]), np.array([block])) for block in range(count)], [1] * count, 4)


@pytest.mark.parametrize("change", ["tap", "adapter", "rows", "outputs", "experts"])
def test_what_is_no_plain_decode_step_runs_as_ever(change: str) -> None:
    tiny = tiny_checkpoint("mixtral" if change == "experts" else "llama", shape=TinyShape()).config
    steps = FixedSteps(tiny, 256, 4, torch.device("cpu"))
    batch = decode_batch(MAX_ROWS + 1 if change == "rows" else 2)
    if change == "tap":
        batch.tap_layer = 1
    if change == "adapter":
        batch.adapters = np.array([-1, 0], np.int32)
    if change == "outputs":
        batch = replace(batch, output_rows=batch.output_rows[:1])
    assert steps._shape(batch) is None
    if change != "experts":
        assert steps._shape(decode_batch(2)) == (2, LEAST_KEYS)
