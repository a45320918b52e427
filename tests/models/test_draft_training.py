"""Training a draft of a tiny target: the network against other speakers, the loss, checkpoints, the written file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.kernels.quant import dequantize
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.config import Family, ModelConfig
from shoal.models.draft_training.data import Data, draw, text_corpus
from shoal.models.draft_training.files import write_draft
from shoal.models.draft_training.plan import DraftShape, Plan, draft_config
from shoal.models.draft_training.torch_speaker import TrainingOps
from shoal.models.draft_training.torch_state import restore, save, train
from shoal.models.draft_training.torch_train import (
    Trainer,
    candidates,
    initial_parameters,
    projected_rows,
    trained_values,
)
from shoal.models.families import family_forward
from shoal.models.forced import forced_logits
from shoal.models.names import expected_shapes
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.models.torch_runner import TorchRunner

DENSE: tuple[Family, ...] = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
SHAPE = DraftShape(32, 1, 64)
PLAN = Plan(SHAPE, 6, 6, batch=4, length=16, warmup=2)
TOKENS = np.random.default_rng(3).integers(0, 256, 400, dtype=np.int32)


def values_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {
        name: dequantize(tensor.storage, tensor.data, tensor.shape[-1]).reshape(tensor.shape)
        for name, tensor in checkpoint.weights.items()
    }


def speak(config: ModelConfig, values: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits (length, vocab) of one window by the training network."""
    parameters = {name: torch.from_numpy(array) for name, array in values.items()}
    ops = TrainingOps(config, parameters, torch.from_numpy(tokens[None].astype(np.int64)))
    with torch.inference_mode():
        return np.asarray(family_forward(config)(ops, config))


def trainer(plan: Plan = PLAN, tokens: np.ndarray = TOKENS, family: Family = "llama") -> Trainer:
    target = tiny_checkpoint(family)
    data = Data(text_corpus(tokens), text_corpus(tokens[::-1].copy()))
    return Trainer(draft_config(target.config, plan.shape), plan, data, target.weights["token_embd.weight"])


# ---- shape ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*DENSE, "mixtral", "qwen3moe"])
def test_the_block_is_the_target_s_scaled_down(family: Family) -> None:
    target = tiny_checkpoint(family, shape=TinyShape(num_heads=8, num_kv_heads=2, hidden_size=256)).config
    config = draft_config(target, DraftShape(128, 1, 96))
    assert (config.vocab_size, config.head_dim, config.rope_kinds) == (259, target.head_dim, target.rope_kinds)
    assert (config.hidden_size, config.num_layers, config.ffn_size, config.num_heads) == (128, 1, 96, 4)
    assert (config.num_kv_heads, config.num_experts, config.is_tied) == (1, 0, True)
    assert len(config.ropes) == len(config.windows) == 1
    assert config.family == {"mixtral": "llama", "qwen3moe": "qwen3"}.get(family, family)


@pytest.mark.parametrize(("shape", "key"), [
    (DraftShape(48, 1, 64), "--hidden"), (DraftShape(0, 1, 64), "--hidden"), (DraftShape(128, 1, 64), "--hidden"),
    (DraftShape(32, 1, 65), "--ffn"), (DraftShape(32, 0, 64), "--layers"), (DraftShape(32, 3, 64), "--layers"),
])  # fmt: skip
def test_shapes_that_cannot_be_are_refused_by_name(shape: DraftShape, key: str) -> None:
    with pytest.raises(BadConfig, match=key):
        draft_config(tiny_checkpoint().config, shape)


# ---- network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", DENSE)
def test_the_training_network_is_the_one_that_runs(family: Family) -> None:
    """Windows shorter than the tokens, caps, biases and norms of heads included."""
    checkpoint, tokens = tiny_checkpoint(family, seed=5), TOKENS[:60]
    runner = TorchRunner(checkpoint, block_size=16, num_blocks=8)
    expected = forced_logits(runner, [tokens.tolist()])[0]
    np.testing.assert_allclose(speak(checkpoint.config, values_of(checkpoint), tokens), expected, atol=2e-4)


def test_projected_embeddings_keep_as_much_as_the_best_subspace() -> None:
    tensor = tiny_checkpoint().weights["token_embd.weight"]
    found = projected_rows(tensor, 32).numpy()
    values = dequantize(tensor.storage, tensor.data, 64)
    strengths = np.linalg.svd(values, compute_uv=False)
    assert found.shape == (259, 32)
    np.testing.assert_allclose((found**2).sum(), (strengths[:32] ** 2).sum(), rtol=1e-4)


def test_random_candidates_stand_for_the_rest() -> None:
    """The sum over candidates, each with its weight, is the sum over the vocabulary on average."""
    values = np.exp(np.random.default_rng(0).standard_normal(500))
    frequent, targets = np.arange(0, 100, 5), np.array([[3, 499], [3, 20]])
    sums = []
    for seed in range(2000):
        rows, bias = candidates(targets, frequent, 500, 40, np.random.default_rng(seed))
        assert len(set(rows.tolist())) == len(rows) == len(bias)
        assert {3, 20, 499, *frequent.tolist()} <= set(rows[bias == 0].tolist())
        sums.append((values[rows] * np.exp(bias)).sum())
    assert abs(np.mean(sums) / values.sum() - 1) < 0.01


def test_a_small_vocabulary_is_taken_whole() -> None:
    rows, bias = candidates(np.array([[1]]), np.array([2]), 30, 28, np.random.default_rng(0))
    assert rows.tolist() == list(range(30))
    assert not bias.any()


# ---- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_loss_on_a_fixed_window_falls(family: Family) -> None:
    plan = replace(PLAN, pretrain_steps=60, align_steps=1, batch=1, length=64)
    learner = trainer(plan, TOKENS[:65], family)
    window = draw(text_corpus(TOKENS[:65]), plan, 0)
    before = learner.full_loss(window)
    for _ in range(60):
        learner.advance()
    assert learner.full_loss(window) < before / 2


def test_sampled_candidates_train_too() -> None:
    plan = replace(PLAN, pretrain_steps=60, align_steps=1, batch=1, length=64, frequent=8, random=16)
    learner = trainer(plan, TOKENS[:65])
    window = draw(text_corpus(TOKENS[:65]), plan, 0)
    before = learner.full_loss(window)
    for _ in range(60):
        learner.advance()
    assert learner.full_loss(window) < before / 2


def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path: Path) -> None:
    whole = trainer()
    pretrained: list[int] = []
    train(whole, tmp_path / "whole.pt", lambda *_: None, lambda: pretrained.append(whole.step))
    assert pretrained == [6]
    first = trainer()
    for _ in range(5):
        first.advance()
    save(tmp_path / "state.pt", first)
    first.advance()  # lost with the process
    (tmp_path / "state.partial").write_bytes(b"killed while writing")
    second = trainer()
    restore(tmp_path / "state.pt", second)
    assert second.step == 5
    train(second, tmp_path / "state.pt", lambda *_: None, lambda: None)
    for name, expected in trained_values(whole.parameters).items():
        np.testing.assert_array_equal(trained_values(second.parameters)[name], expected)


def test_a_finished_training_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = trainer()
    train(whole, tmp_path / "state.pt", lambda *_: None, lambda: None)
    again = trainer()
    restore(tmp_path / "state.pt", again)
    steps: list[int] = []
    train(again, tmp_path / "state.pt", lambda step, _: steps.append(step), lambda: None)
    assert steps == []
    assert again.step == PLAN.steps


def test_a_checkpoint_of_another_training_or_none_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "state.pt", trainer())
    with pytest.raises(BadWeights, match="plan"):
        restore(tmp_path / "state.pt", trainer(replace(PLAN, seed=1)))
    data = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadWeights, match="checkpoint"):
        restore(tmp_path / "state.pt", trainer())


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    learner = trainer()
    with torch.no_grad():
        learner.parameters["output_norm.weight"].fill_(torch.nan)
    with pytest.raises(LocalError, match="--learning-rate"):
        train(learner, tmp_path / "state.pt", lambda *_: None, lambda: None)
    assert not (tmp_path / "state.pt").exists()


# ---- the file -------------------------------------------------------------------------------------------------


def noisy(config: ModelConfig) -> dict[str, np.ndarray]:
    """Values with no zero among them, so that a tensor in the wrong place shows."""
    random = np.random.default_rng(8)
    return {
        name: (1 + 0.1 * random.standard_normal(shape) if name.endswith("norm.weight")
               else 0.2 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in expected_shapes(config).items()
    }  # fmt: skip


def on_disk(path: Path, family: Family) -> Checkpoint:
    tiny = tiny_checkpoint(family)
    write_draft(path, tiny, tiny.config, values_of(tiny), "Q8_0")
    return open_checkpoint(path)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("storage", ["Q8_0", "Q4_0"])
def test_the_written_file_opens_with_the_target_s_tokenizer_and_runs(
    tmp_path: Path, family: Family, storage: Any
) -> None:
    target = on_disk(tmp_path / "target.gguf", family)
    config = draft_config(target.config, SHAPE)
    write_draft(tmp_path / "draft.gguf", target, config, noisy(config), storage)
    draft = open_checkpoint(tmp_path / "draft.gguf")
    assert (draft.config, draft.quantization) == (config, storage)
    theirs, ours = (load_tokenizer(item.tokenizer) for item in (target, draft))
    assert ours.vocabulary == theirs.vocabulary
    assert ours.encode("Grüße, 世界! <|im_end|>") == theirs.encode("Grüße, 世界! <|im_end|>")
    runner = TorchRunner(draft, block_size=16, num_blocks=8)
    expected = speak(config, values_of(draft), TOKENS[:50])
    np.testing.assert_allclose(forced_logits(runner, [TOKENS[:50].tolist()])[0], expected, atol=2e-4)
    error = np.abs(values_of(draft)["blk.0.attn_q.weight"] - noisy(config)["blk.0.attn_q.weight"]).max()
    assert error < (0.01 if storage == "Q8_0" else 0.15)


KINDS: dict[str, dict[str, Any]] = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 32}, "Gemma2": {"head_dim": 32, "sliding_window": 24},
    "Gemma3": {"head_dim": 32, "sliding_window": 24}, "Mixtral": {"num_local_experts": 2},
    "Qwen3Moe": {"head_dim": 32, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_s_draft_is_what_transformers_computes(tmp_path: Path, kind: str) -> None:
    small = {"vocab_size": 259, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    made = getattr(transformers, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")(**small, **KINDS[kind])
    getattr(transformers, f"{kind}ForCausalLM")(made).save_pretrained(tmp_path / "target")
    (tmp_path / "target" / "tokenizer.json").write_text("{}")
    target = open_checkpoint(tmp_path / "target")
    config = draft_config(target.config, SHAPE)
    write_draft(tmp_path / "draft", target, config, noisy(config), "Q8_0")
    draft = open_checkpoint(tmp_path / "draft")
    assert draft.config == config
    assert (tmp_path / "draft" / "tokenizer.json").read_text() == "{}"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "draft", dtype=torch.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(TOKENS[None, :50].astype(np.int64))).logits[0].numpy()
    np.testing.assert_allclose(speak(config, values_of(draft), TOKENS[:50]), expected, atol=2e-4)


def test_a_second_draft_takes_the_first_one_s_place(tmp_path: Path) -> None:
    target = on_disk(tmp_path / "target.gguf", "llama")
    for size in (64, 32):
        config = draft_config(target.config, DraftShape(size, 1, 32))
        write_draft(tmp_path / "draft.gguf", target, config, noisy(config), "Q8_0")
    assert open_checkpoint(tmp_path / "draft.gguf").config.hidden_size == 32
    assert sorted(item.name for item in tmp_path.iterdir()) == ["draft.gguf", "target.gguf"]


def test_embeddings_begin_as_the_target_s_or_as_noise_of_their_size() -> None:
    tensor = tiny_checkpoint().weights["token_embd.weight"]
    config = draft_config(tiny_checkpoint().config, SHAPE)
    projected = initial_parameters(config, PLAN, tensor)["token_embd.weight"].detach()
    noise = initial_parameters(config, replace(PLAN, is_pca=False), tensor)["token_embd.weight"].detach()
    torch.testing.assert_close(projected, projected_rows(tensor, 32))
    assert abs(float(noise.std() / projected.std()) - 1) < 0.1
    assert not torch.equal(noise, projected)
