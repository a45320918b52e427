"""Early exit, importance and core-neuron slices of a whole network, against a network that is really that small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.core.errors import Unsupported
from shoal.models.batch import Batch
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import Family
from shoal.models.forced import Forced, forced_logits, make_batch
from shoal.models.native_runner import NativeRunner
from shoal.models.tensors import Tensor
from shoal.models.tiny import TinyShape, tiny_checkpoint

TOKENS = np.random.default_rng(0).integers(0, 256, 50).astype(np.int32)


def whole_batch(runner: NativeRunner, count: int = len(TOKENS)) -> Batch:
    return make_batch([Forced(TOKENS, np.array([5, 0, 3, 1], np.int32))], [count], runner.block_size)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_early_exit_equals_the_shorter_network(family: Family) -> None:
    long, short = (tiny_checkpoint(family, shape=TinyShape(num_layers=layers)) for layers in (4, 2))
    runner, twin = NativeRunner(long, num_blocks=8), NativeRunner(short, num_blocks=8)
    (expected,) = forced_logits(twin, [TOKENS.tolist()])
    batch = whole_batch(runner)
    assert np.array_equal(runner.approximation.run(batch, layers=2), expected)
    whole = runner.run(batch).copy()
    assert np.array_equal(runner.approximation.run(batch, layers=4), whole)  # and all of it is all of it
    assert np.array_equal(runner.approximation.importance(batch, np.ones(50, np.float32), False, layers=2),
                          twin.approximation.importance(whole_batch(twin), np.ones(50, np.float32), False))  # fmt: skip
    runner.close()
    twin.close()


def test_a_network_whose_stream_moves_refuses_to_exit_early() -> None:
    runner = NativeRunner(tiny_checkpoint("mixtral", shape=TinyShape(num_layers=4)), num_blocks=8)
    with pytest.raises(Unsupported, match="moves between buffers"):
        runner.approximation.check_depth(3)
    with pytest.raises(Unsupported, match="experts"):
        runner.approximation.check_neurons()
    runner.close()


def test_rope_positions_move_the_rotation_only() -> None:
    """Rotary attention sees distances: all positions shifted by the same amount give the same answer, to rounding."""
    runner = NativeRunner(tiny_checkpoint("llama"), num_blocks=8, kv_type="f32")
    batch = whole_batch(runner)
    plain = runner.run(batch).copy()
    batch.rope_positions = batch.positions
    assert np.array_equal(runner.run(batch), plain)
    batch.rope_positions = batch.positions + 40
    shifted = runner.run(batch).copy()
    np.testing.assert_allclose(shifted, plain, atol=2e-4)
    batch.rope_positions = batch.positions * 2
    assert np.abs(runner.run(batch) - plain).max() > 1e-2
    runner.close()


@pytest.mark.parametrize("storage", ["F32", "Q8_0", "Q4_1"])
def test_core_neurons_equal_a_model_without_the_others(storage: str) -> None:
    """Zero rows of gate and up switch a neuron off; the slice computes the same up to the requantised down columns."""
    checkpoint = tiny_checkpoint("llama", storage=storage)  # type: ignore[arg-type]
    neurons = np.stack([np.sort(np.random.default_rng(layer).permutation(96)[:32]) for layer in range(2)])
    runner = NativeRunner(checkpoint, num_blocks=8, activation_bits=16)
    twin = NativeRunner(without(checkpoint, neurons), num_blocks=8, activation_bits=16)
    (expected,) = forced_logits(twin, [TOKENS.tolist()])
    size = runner.approximation.set_neurons(0, neurons)
    batch = whole_batch(runner)
    sliced = runner.approximation.run(batch, neurons=0).copy()
    whole = runner.run(batch).copy()
    assert np.abs(sliced - expected).max() < 0.05 < np.abs(sliced - whole).max()
    assert 0 < size < runner.weights_bytes
    one = make_batch([Forced(TOKENS, np.array([5, 0, 3, 1], np.int32), done=49)], [1], runner.block_size)
    for position in range(49):  # the cache as the slices write it
        batch = make_batch([Forced(TOKENS, np.array([5, 0, 3, 1], np.int32), done=position)], [1], runner.block_size)
        runner.approximation.run(batch, neurons=0)
    assert np.array_equal(runner.approximation.run(one, neurons=0)[0], sliced[-1])
    runner.close()
    twin.close()


def without(checkpoint: Checkpoint, neurons: np.ndarray) -> Checkpoint:
    """The checkpoint with every other row of gate and up set to zero."""
    weights = dict(checkpoint.weights)
    for layer, kept in enumerate(neurons):
        for part in ("gate", "up"):
            tensor = weights[f"blk.{layer}.ffn_{part}.weight"]
            data = tensor.data.reshape(tensor.shape[0], -1).copy()
            data[np.setdiff1d(np.arange(len(data)), kept)] = 0
            weights[tensor.name] = Tensor(tensor.name, tensor.shape, tensor.storage, data)
    return replace(checkpoint, weights=weights)


def test_activations_are_what_enters_down() -> None:
    checkpoint = tiny_checkpoint("llama")
    runner = NativeRunner(checkpoint, num_blocks=8)
    batch = whole_batch(runner)
    found = runner.approximation.activations(batch)
    assert found.shape == (2, 50, 96)
    assert (np.abs(found).max(axis=(1, 2)) > 0).all()
    neurons = np.stack([np.argsort(-np.abs(layer).max(axis=0))[:32] for layer in found])
    runner.approximation.set_neurons(1, np.sort(neurons))
    np.testing.assert_array_equal(runner.approximation.activations(batch), found)  # a slot changes nothing unasked
    runner.approximation.drop_neurons(1)
    runner.close()
