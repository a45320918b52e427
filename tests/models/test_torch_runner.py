"""The torch runner on tiny models: a sequence's logits do not depend on its company, its chunks or its blocks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pytest
import torch
import transformers as hf

from shoal.core.errors import BadConfig, Unsupported
from shoal.kernels.quant import dequantize
from shoal.models.checkpoint import open_checkpoint
from shoal.models.config import Family
from shoal.models.forced import Forced, forced_logits, make_batch
from shoal.models.tensors import Tensor
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.torch_runner import TorchRunner

FAMILIES = get_args(Family)


def _sequences(lengths: tuple[int, ...] = (1, 33, 20, 60)) -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(0, 259, length).tolist() for length in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_and_chunked_equal_alone_and_whole(family: Family) -> None:
    runner = TorchRunner(tiny_checkpoint(family, seed=1), block_size=4, num_blocks=64)
    sequences = _sequences()
    alone = [forced_logits(runner, [tokens])[0] for tokens in sequences]
    steps = [[1, 8, 0, 30], [0, 1, 7, 1], [0, 1, 1, 1], [0, 20, 1, 1]]
    for seed, schedule in enumerate(([], steps)):
        together = forced_logits(runner, sequences, schedule, seed=seed)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
    assert np.abs(alone[3][0] - alone[3][-1]).max() > 0.5


@pytest.mark.parametrize("storage", ["Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_quantised_weights_run_as_what_they_decode_to(family: Family, storage: Literal["Q8_0", "Q4_0", "Q4_1"]) -> None:
    packed = tiny_checkpoint(family, seed=2, storage=storage)
    plain = replace(packed, weights={name: _decoded(tensor) for name, tensor in packed.weights.items()})
    assert packed.size_bytes < 0.4 * sum(tensor.size_bytes for tensor in plain.weights.values())
    runners = [TorchRunner(checkpoint, block_size=8, num_blocks=16) for checkpoint in (packed, plain)]
    found, expected = (forced_logits(runner, _sequences((25,)))[0] for runner in runners)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _decoded(tensor: Tensor) -> Tensor:
    values = dequantize(tensor.storage, tensor.data, tensor.shape[-1])
    return replace(tensor, storage="F32", data=values.view(np.uint8))


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_close_to_float32(family: Family) -> None:
    """The arithmetic CUDA uses, on the CPU."""
    checkpoint = tiny_checkpoint(family, seed=4)
    exact = TorchRunner(checkpoint, block_size=8, num_blocks=16)
    rounded = TorchRunner(checkpoint, dtype="bfloat16", block_size=8, num_blocks=16)
    tokens = _sequences((7, 30))
    for one, other in zip(forced_logits(exact, tokens), forced_logits(rounded, tokens, [[3, 11]]), strict=True):
        assert other.dtype == np.float32
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.995


def test_logits_only_where_they_are_wanted() -> None:
    runner = TorchRunner(tiny_checkpoint(), block_size=4, num_blocks=32)
    work = [Forced(np.arange(9), np.array([3, 1, 2])), Forced(np.arange(5), np.array([7, 9]))]
    batch = make_batch(work, [9, 5], 4)
    everything = runner.run(batch)
    batch.output_rows = np.array([2, 13], np.int32)
    np.testing.assert_allclose(runner.run(batch), everything[[2, 13]], atol=1e-5)
    batch.output_rows = np.zeros(0, np.int32)
    assert runner.run(batch).shape == (0, runner.vocab_size)


def test_a_copied_block_continues_like_its_source() -> None:
    runner = TorchRunner(tiny_checkpoint(), block_size=4, num_blocks=8)
    tokens = np.arange(40, 47)
    source = Forced(tokens, np.array([5, 2]))
    prefix = make_batch([source], [6], 4)
    runner.run(prefix)
    runner.copy_blocks([(2, 6)])
    source.done = 6
    fork = Forced(tokens, np.array([5, 6]), done=6)
    expected = runner.run(make_batch([source], [1], 4))
    np.testing.assert_array_equal(runner.run(make_batch([fork], [1], 4)), expected)


def test_taps_are_transformers_hidden_states(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2
    )
    model = hf.LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder)
    runner = TorchRunner(open_checkpoint(folder), block_size=4, num_blocks=8)
    tokens = np.arange(10)
    with torch.inference_mode():
        states = model(torch.from_numpy(tokens)[None], output_hidden_states=True).hidden_states
    work = Forced(tokens, np.array([4, 0, 6]))
    for layer in range(3):  # theirs after the last layer is normed already
        batch = make_batch([work], [10], 4, tap_layer=layer)
        batch.output_rows = np.array([0, 6, 9], np.int32)
        runner.run(batch)
        np.testing.assert_allclose(runner.taps(), states[layer][0][[0, 6, 9]].numpy(), atol=1e-5)
    runner.run(make_batch([work], [10], 4, tap_layer=3))
    normed = model.model.norm(torch.from_numpy(runner.taps())).detach().numpy()
    np.testing.assert_allclose(normed, states[3][0].numpy(), atol=1e-5)
    runner.run(make_batch([work], [10], 4))
    assert runner.taps().shape == (0, 32)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_here_is_a_configuration_error(device: str) -> None:
    with pytest.raises(BadConfig) as caught:
        TorchRunner(tiny_checkpoint(), device=device, num_blocks=1)
    assert caught.value.key == "device"


def test_a_device_this_code_does_not_run_on_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="meta"):
        TorchRunner(tiny_checkpoint(), device="meta", num_blocks=1)


def test_sizes_and_close() -> None:
    shape = TinyShape(hidden_size=96)
    runner = TorchRunner(tiny_checkpoint(shape=shape), block_size=32, num_blocks=3, max_adapters=2)
    sizes = (runner.block_size, runner.num_blocks, runner.vocab_size, runner.hidden_size, runner.max_adapters)
    assert sizes == (32, 3, 259, 96, 2)
    runner.close()
    with pytest.raises(AttributeError):
        runner.copy_blocks([(0, 1)])


def test_torch_is_imported_only_by_its_own_modules() -> None:
    code = (
        "import sys, shoal.models.checkpoint, shoal.models.families, shoal.models.tiny, shoal.models.forced, "
        "shoal.models.lora, shoal.models.rope, shoal.kernels.reference; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
