"""Checkpoints as integer graphs: the same network as the engine's, faithful numbers, other families refused by name."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from shoal.core.errors import Unsupported
from shoal.models.config import Family, Part
from shoal.models.forced import forced_logits
from shoal.models.part import part_of
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.torch_runner import TorchRunner
from shoal.proof.lower.lower import lower
from shoal.proof.transformer.forward import prove_forward, verify_forward
from shoal.proof.transformer.reference import Reference
from shoal.trust.forward_model import calibrate, fidelity, floats_of, forward_graph

LENGTH = 12
SMALL = TinyShape(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32, ffn_size=32)


def prompts(count: int, seed: int = 4) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, 259, (count, LENGTH)).tolist()


def test_the_reference_is_the_network_the_engine_runs() -> None:
    checkpoint = tiny_checkpoint("llama", seed=3, storage="Q4_1")
    floats = floats_of(checkpoint)
    (prompt,) = prompts(1)
    (expected,) = forced_logits(TorchRunner(checkpoint, block_size=8, num_blocks=8), [prompt])
    np.testing.assert_allclose(Reference(floats.config, floats.weights).logits(prompt), expected[-1], atol=2e-4)


def test_integers_are_faithful_and_proven() -> None:
    floats = floats_of(tiny_checkpoint("llama", seed=3, shape=SMALL, storage="Q8_0"))
    graph = forward_graph(floats, LENGTH, calibrate(floats, prompts(8)))
    found = fidelity(floats, graph, prompts(12, seed=5), [0] * 12)
    assert (found.prompts, found.refused) == (12, 0)
    assert found.same_token > 0.9  # noise has near ties
    assert found.worst_divergence < 2e-3
    assert abs(found.integer_loss - found.float_loss) < 1e-2
    lowered, (prompt,) = lower(graph), prompts(1)
    assert verify_forward(lowered, prove_forward(lowered, prompt)).bits_proven >= 100


def test_prompts_that_leave_the_calibrated_ranges_are_counted() -> None:
    floats = floats_of(tiny_checkpoint("llama", seed=3, shape=SMALL))
    scales = calibrate(floats, prompts(1))
    shrunk = type(scales)({name: value / 8 for name, value in scales.largest.items()})
    found = fidelity(floats, forward_graph(floats, LENGTH, shrunk), prompts(2, seed=5), [0, 0])
    assert found.refused == 2


@pytest.mark.parametrize("family", sorted(set(get_args(Family)) - {"llama"}))
def test_other_families_are_refused_by_name(family: Family) -> None:
    with pytest.raises(Unsupported, match=f"the family {family}"):
        floats_of(tiny_checkpoint(family))


def test_a_part_of_a_network_is_refused() -> None:
    with pytest.raises(Unsupported, match="a part of one"):
        floats_of(part_of(tiny_checkpoint("llama"), Part(0, 1)))
