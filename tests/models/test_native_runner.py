"""The native runner against torch on every family, and against itself under every way of cutting the work."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from shoal.core.errors import BadConfig, LocalError, Unsupported
from shoal.kernels.executor import KvType
from shoal.models.config import Family
from shoal.models.forced import Forced, forced_logits, make_batch
from shoal.models.native_runner import NativeRunner
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.torch_runner import TorchRunner

FAMILIES = get_args(Family)
LENGTHS = (1, 40, 77)
CHUNKS = [(0, 3, 20), (1, 20, 1), (0, 16, 40)]


def _sequences(vocab: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab, length).tolist() for length in LENGTHS]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_torch_within_float32(family: Family) -> None:
    checkpoint = tiny_checkpoint(family, shape=TinyShape(num_layers=4))
    sequences = _sequences(checkpoint.config.vocab_size)
    expected = forced_logits(TorchRunner(checkpoint, num_blocks=16), sequences)
    runner = NativeRunner(checkpoint, num_blocks=16, kv_type="f32", threads=2)
    for got, wanted in zip(forced_logits(runner, sequences, CHUNKS), expected, strict=True):
        assert np.abs(got - wanted).max() < 1e-4
    runner.close()


@pytest.mark.parametrize(("storage", "kv_type"), [("F32", "int8"), ("Q8_0", "f16"), ("Q4_1", "f32")])
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3moe"])
def test_logits_are_the_same_bits_however_the_work_is_cut(family: Family, storage: str, kv_type: KvType) -> None:
    """Alone or together, whole or in chunks, one thread or two, one instruction set: the same logits exactly."""
    checkpoint = tiny_checkpoint(family, storage=storage)  # type: ignore[arg-type]
    sequences = _sequences(checkpoint.config.vocab_size, seed=1)
    one, two = (NativeRunner(checkpoint, num_blocks=16, kv_type=kv_type, threads=threads) for threads in (1, 2))
    together = forced_logits(two, sequences)
    chunked = forced_logits(one, sequences, CHUNKS, seed=5)
    for sequence, whole, parts in zip(sequences, together, chunked, strict=True):
        (alone,) = forced_logits(two, [sequence], [[7]] * 20, seed=9)
        assert np.array_equal(whole, parts)
        assert np.array_equal(whole, alone)
    one.close()
    two.close()


def test_quantised_weights_stay_near_their_float_twin() -> None:
    """Int8 activations cost little: the torch twin computes with the same weights in float32."""
    checkpoint = tiny_checkpoint("llama", storage="Q4_1")
    sequences = _sequences(checkpoint.config.vocab_size, seed=2)
    expected = np.concatenate(forced_logits(TorchRunner(checkpoint, num_blocks=16), sequences)).astype(np.float64)
    runner = NativeRunner(checkpoint, num_blocks=16)
    got = np.concatenate(forced_logits(runner, sequences)).astype(np.float64)
    runner.close()
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (expected, got))
    assert (np.exp(p) * (p - q)).sum(1).mean() < 1e-2
    assert np.corrcoef(expected.ravel(), got.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_tap_is_the_residual_stream_torch_has(layer: int) -> None:
    checkpoint = tiny_checkpoint("qwen3")
    item = Forced(np.arange(30, dtype=np.int32), np.array([3, 1], np.int32))
    batch = make_batch([item], [30], 16, tap_layer=layer)
    batch.output_rows = np.array([2, 29], np.int32)
    runners = [NativeRunner(checkpoint, num_blocks=4, kv_type="f32"), TorchRunner(checkpoint, num_blocks=4)]
    taps = []
    for runner in runners:
        runner.run(batch)
        taps.append(runner.taps().copy())
        runner.close()
    assert taps[0].shape == (2, 64)
    assert np.abs(taps[0] - taps[1]).max() < 1e-4


def test_without_a_tap_there_are_no_rows() -> None:
    runner = NativeRunner(tiny_checkpoint(), num_blocks=4)
    forced_logits(runner, [[1, 2, 3]])
    assert runner.taps().shape == (0, 64)
    runner.close()


def test_an_int8_cache_takes_half_the_memory_and_stays_near_the_float_one() -> None:
    checkpoint = tiny_checkpoint("llama", storage="Q8_0")
    sequences = _sequences(checkpoint.config.vocab_size, seed=3)
    logits, sizes = [], []
    for kv_type in ("f32", "f16", "int8"):
        runner = NativeRunner(checkpoint, num_blocks=16, kv_type=kv_type, activation_bits=16)
        logits.append(np.concatenate(forced_logits(runner, sequences)).astype(np.float64))
        sizes.append(runner.approximation.pair_bytes)
        runner.close()
    dim = checkpoint.config.head_dim
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] * (dim + 4) // (4 * dim)]
    p, _, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in logits)
    assert 0 < (np.exp(p) * (p - q)).sum(1).mean() < 1e-3


def test_weights_take_little_more_memory_than_their_file() -> None:
    checkpoint = tiny_checkpoint("llama", storage="Q4_1", shape=TinyShape(hidden_size=256, ffn_size=512))
    runner = NativeRunner(checkpoint, num_blocks=4)
    assert runner.weights_bytes < 1.1 * checkpoint.size_bytes
    runner.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"block_size": 24}, "multiple of 16, found 24"), ({"kv_type": "q4"}, "f16 or int8, found 'q4'")],
)
def test_an_unusable_option_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        NativeRunner(tiny_checkpoint(), num_blocks=4, **options)  # type: ignore[arg-type]


def test_a_head_the_kernels_cannot_hold_is_refused() -> None:
    with pytest.raises(Unsupported, match="head dimension"):
        NativeRunner(tiny_checkpoint(shape=TinyShape(head_dim=20)), num_blocks=4)


def test_an_empty_adapter_slot_is_refused() -> None:
    runner = NativeRunner(tiny_checkpoint(), num_blocks=4)
    with pytest.raises(LocalError, match="slot 3"):
        forced_logits(runner, [[1, 2]], adapters=[3])
    runner.close()
