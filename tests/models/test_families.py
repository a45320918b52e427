"""Every family against transformers on the same random weights: within 1e-4 in ragged, chunked batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from shoal.models.checkpoint import open_checkpoint
from shoal.models.forced import forced_logits
from shoal.models.torch_runner import TorchRunner

VOCAB = 131
COMMON = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
MIXTURE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
GEMMA3_ROPES = {"sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0}}  # fmt: skip

CASES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON)),
    "llama-tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON | {"tie_word_embeddings": True})),
    "llama-multi-head": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON | {"num_key_value_heads": 4})),
    "llama-llama3": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=LLAMA3)),
    "llama-yarn": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=YARN)),
    "llama-linear": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=LINEAR)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**COMMON, sliding_window=9)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_without_head_dim())),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**COMMON)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_gemma2())),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**_gemma(), layer_types=_local_global(), rope_parameters=GEMMA3_ROPES)
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**COMMON, num_local_experts=5, num_experts_per_tok=2)),
    "qwen3moe": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**COMMON, **MIXTURE, norm_topk_prob=True)),
    "qwen3moe-raw": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**COMMON, **MIXTURE, norm_topk_prob=False)),
}


def _without_head_dim() -> dict[str, Any]:
    """Qwen2's heads always divide the hidden size."""
    return {key: value for key, value in COMMON.items() if key != "head_dim"}


def _gemma() -> dict[str, Any]:
    """Gemma always ties; its scale is not that of the head."""
    return COMMON | {"tie_word_embeddings": True, "query_pre_attn_scalar": 20, "sliding_window": 9}


def _gemma2() -> dict[str, Any]:
    """Caps low enough that every score and logit feels them."""
    return _gemma() | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}


def _local_global() -> list[str]:
    return ["sliding_attention", "full_attention", "sliding_attention"]


def _build(case: str) -> Any:
    """Random weights far enough from their initial values that every bias and norm matters."""
    torch.manual_seed(sum(case.encode()))
    model = CASES[case]().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.1 if weight.ndim > 1 else 0.3))
            assert "norm" not in name or weight.ndim == 1
    return model


def _sequences() -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(0, VOCAB, length).tolist() for length in (1, 17, 40, 71)]


WHOLE: list[list[int]] = []
CHUNKED = [[1, 5, 13, 64], [0, 5, 1, 1], [0, 1, 1, 1], [0, 1, 20, 0]]
"""Prefill chunks and single decode steps of different sequences side by side; the rest in a last step."""


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str, tmp_path: Path) -> None:
    model = _build(case)
    model.save_pretrained(tmp_path)
    runner = TorchRunner(open_checkpoint(tmp_path), block_size=4, num_blocks=48)
    sequences = _sequences()
    with torch.inference_mode():
        expected = [model(torch.tensor([tokens])).logits[0].numpy() for tokens in sequences]
    assert max(float(np.abs(logits).max()) for logits in expected) > 0.5
    for steps in (WHOLE, CHUNKED):
        found = forced_logits(runner, sequences, steps)
        worst = max(float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True))
        assert worst < 1e-4, f"{case}: {worst}"
