"""GGUF metadata to a configuration: what llama.cpp would make of the same keys, and what must be refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import BadWeights
from shoal.models.config import ModelConfig, Rope
from shoal.models.gguf import GgufFile
from shoal.models.gguf_config import gguf_config
from shoal.models.gguf_weights import gguf_weights
from shoal.models.names import expected_shapes
from shoal.models.tensors import Tensor

BASE = {"context_length": 4096, "embedding_length": 64, "block_count": 4, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5}  # fmt: skip


def tensor(name: str, *shape: int) -> Tensor:
    rows = np.arange(math.prod(shape), dtype=np.float32).reshape(-1, shape[-1])
    return Tensor(name, shape, "F32", rows.view(np.uint8))


def file_of(architecture: str, values: dict[str, object], *tensors: Tensor) -> GgufFile:
    general = {key: value for key, value in values.items() if key.startswith(("general.", "tokenizer.", "split."))}
    own = {f"{architecture}.{key}": value for key, value in (BASE | values).items() if key not in general}
    named = {item.name: item for item in (tensor("token_embd.weight", 32, 64), *tensors)}
    return GgufFile(Path("x.gguf"), {"general.architecture": architecture, **general, **own}, named, 0)


def config_of(architecture: str, *tensors: Tensor, **values: object) -> ModelConfig:
    return gguf_config(
        file_of(architecture, {key.replace("__", "."): value for key, value in values.items()}, *tensors)
    )


def test_what_llama_files_leave_out():
    config = config_of("llama")
    assert (config.family, config.vocab_size, config.head_dim, config.num_kv_heads) == ("llama", 32, 16, 2)
    assert (config.query_scale, config.is_tied, config.has_qkv_bias, config.embed_scale) == (0.25, True, False, 1)
    assert config.rope_kinds == (Rope(theta=10_000.0, dims=16),)
    assert not config_of("llama", tensor("output.weight", 32, 64)).is_tied
    assert config_of("qwen2", tensor("blk.0.attn_q.bias", 64)).has_qkv_bias
    assert config_of("llama", attention__head_count_kv=None).num_kv_heads == 4


def test_values_per_layer_must_agree():
    assert config_of("llama", feed_forward_length=[96] * 4).ffn_size == 96
    for different in ([96, 96, 96, 32], [96] * 3, []):
        with pytest.raises(BadWeights, match="one value for all 4 layers"):
            config_of("llama", feed_forward_length=different)


def test_llama_with_experts_is_mixtral():
    config = config_of("llama", expert_count=8, expert_used_count=2)
    assert (config.family, config.num_experts, config.experts_per_token) == ("mixtral", 8, 2)
    assert (config.expert_ffn_size, config.renormalize_experts) == (96, True)
    config = config_of("qwen3moe", expert_count=8, expert_used_count=2, expert_feed_forward_length=32)
    assert (config.family, config.expert_ffn_size, config.has_qk_norm) == ("qwen3moe", 32, True)


def test_gemma_2():
    config = config_of("gemma2", attention__key_length=32)
    assert (config.attn_softcap, config.logit_softcap, config.query_scale) == (50, 30, 32**-0.5)
    assert config.windows == (4096, None, 4096, None)
    assert (config.embed_scale, config.activation) == (8, "gelu_tanh")
    assert config_of("gemma2", block_count=46).query_scale == (64 // 4) ** -0.5
    assert config_of("gemma2", block_count=46, attention__key_length=32).query_scale == 16**-0.5
    assert config_of("gemma2", attention__scale=0.5).query_scale == 0.5


def test_gemma_3_scales_only_its_global_rope():
    config = config_of(
        "gemma3", block_count=7, attention__sliding_window=512, rope__freq_base=1e6,
        rope__scaling__type="linear", rope__scaling__factor=8.0,
    )  # fmt: skip
    assert config.windows == (512,) * 5 + (None, 512)
    assert config.ropes == (1,) * 5 + (0, 1)
    assert config.rope_kinds == (Rope(1e6, 16, "linear", 8.0), Rope(1e4, 16))
    assert (config.attn_softcap, config.logit_softcap) == (0, 0)
    assert config_of("gemma3").windows == (None,) * 4


def test_rope_scalings():
    linear = config_of("llama", rope__scaling__factor=4.0).rope_kinds[0]
    assert (linear.scaling, linear.factor) == ("linear", 4)
    assert config_of("llama", rope__scale_linear=4.0).rope_kinds[0] == linear
    assert config_of("llama", rope__scaling__type="none", rope__scaling__factor=4.0).rope_kinds[0].scaling == "none"
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 1024}
    assert config_of("qwen2", **yarn).rope_kinds[0] == Rope(1e4, 16, "yarn", 4.0, original_context=1024)
    own = config_of("qwen2", **yarn, rope__scaling__attn_factor=0.5).rope_kinds[0]
    assert own.attention_factor == pytest.approx(0.5 * (0.1 * math.log(4) + 1))


def test_rope_factors_of_llama_3():
    factors = Tensor("rope_freqs.weight", (8,), "F32", np.linspace(1, 8, 8, dtype="<f4").view(np.uint8)[None])
    rope = config_of("llama", factors).rope_kinds[0]
    assert (rope.scaling, rope.factors) == ("factors", tuple(np.linspace(1, 8, 8)))
    with pytest.raises(BadWeights, match="positive"):
        config_of("llama", tensor("rope_freqs.weight", 8))
    with pytest.raises(BadWeights, match=r"F32 \(8,\)"):
        config_of("llama", tensor("rope_freqs.weight", 9))
    with pytest.raises(BadWeights, match="beside rope_freqs"):
        config_of("llama", factors, rope__scaling__factor=2.0)


REFUSED = [
    ("llama", {"attention.head_count": 0}, "llama.attention.head_count"),
    ("llama", {"attention.head_count": True}, "llama.attention.head_count"),
    ("llama", {"attention.head_count": "4"}, "llama.attention.head_count"),
    ("llama", {"block_count": 2**31}, "llama.block_count"),
    ("llama", {"embedding_length": None}, "llama.embedding_length"),
    ("llama", {"attention.layer_norm_rms_epsilon": math.nan}, "llama.attention.layer_norm_rms_epsilon"),
    ("llama", {"attention.value_length": 8}, "llama.attention.value_length"),
    ("llama", {"attention.causal": False}, "llama.attention.causal"),
    ("llama", {"rope.dimension_count": 8}, "llama.rope.dimension_count"),
    ("qwen2", {"rope.dimension_count": 7}, "qwen2.rope.dimension_count"),
    ("llama", {"rope.freq_base": 0.0}, "llama.rope.freq_base"),
    ("llama", {"rope.scaling.type": "longrope"}, "llama.rope.scaling.type"),
    ("llama", {"rope.scaling.factor": math.inf}, "llama.rope.scaling.factor"),
    ("llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_ext_factor": 0.5},
     "llama.rope.scaling.yarn_ext_factor"),
    ("llama", {"logit_scale": 0.5}, "llama.logit_scale"),
    ("llama", {"attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv"),
    ("qwen3", {"attention.sliding_window": 64}, "qwen3.attention.sliding_window"),
    ("gemma3", {"attention.sliding_window": 64, "attention.sliding_window_pattern": [True]},
     "gemma3.attention.sliding_window_pattern"),
    ("qwen2", {"expert_count": 4}, "qwen2.expert_count"),
    ("llama", {"expert_count": 4, "expert_used_count": 5}, "llama.expert_used_count"),
    ("llama", {"expert_count": 4, "expert_used_count": 2, "expert_gating_func": 2}, "llama.expert_gating_func"),
    ("llama", {"split.count": 3}, "split.count"),
    ("llama", {"tokenizer.ggml.tokens": ["a"] * 33}, "llama.vocab_size"),
    ("bert", {}, "general.architecture"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "values", "field"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(architecture, values, field):
    with pytest.raises(BadWeights) as caught:
        gguf_config(file_of(architecture, values))
    assert caught.value.field == field


def test_an_unknown_architecture_is_told_which_are_known():
    with pytest.raises(BadWeights, match=r"llama, qwen2, qwen3, qwen3moe, gemma2, gemma3.*'bert'"):
        config_of("bert")


# ---- weights ---------------------------------------------------------------------------------------------------


def whole_file(**changes: tuple[int, ...]) -> GgufFile:
    shapes = expected_shapes(config_of("llama")) | {key.replace("__", "."): value for key, value in changes.items()}
    return file_of("llama", {}, *(tensor(name, *shape) for name, shape in shapes.items()))


def test_rows_of_q_and_k_come_back_in_half_split_order():
    """Stored order pairs neighbours: row 2 i of a head is row i of the first half, 2 i + 1 of the second."""
    file = whole_file(blk__0__attn_q__bias=(64,), blk__0__attn_k__bias=(32,), blk__0__attn_v__bias=(32,))
    file.tensors.update(
        {
            f"blk.{i}.attn_{x}.bias": tensor(f"blk.{i}.attn_{x}.bias", 64 if x == "q" else 32)
            for i in range(4)
            for x in "qkv"
        }
    )
    weights = gguf_weights(file, gguf_config(file))
    head = [*range(0, 16, 2), *range(1, 16, 2)]
    for letter, heads in (("q", 4), ("k", 2)):
        rows = [16 * number + row for number in range(heads) for row in head]
        found = weights[f"blk.1.attn_{letter}.weight"].data.view(np.float32)
        assert np.array_equal(found[:, 0], 64 * np.array(rows))
        assert np.array_equal(weights[f"blk.1.attn_{letter}.bias"].data.view(np.float32)[0], rows)
    assert weights["blk.1.attn_v.weight"].data is file.tensors["blk.1.attn_v.weight"].data


def test_buffers_are_left_out_and_strangers_refused():
    file = whole_file(blk__2__attn_rot_embd__weight=(8,))
    assert set(gguf_weights(file, gguf_config(file))) == set(expected_shapes(gguf_config(file)))
    file = whole_file(blk__2__attn_output__bias=(64,))
    with pytest.raises(BadWeights, match=r"tensor blk\.2\.attn_output\.bias: expected only tensors that llama reads"):
        gguf_weights(file, gguf_config(file))
    file = whole_file(blk__2__ffn_up__weight=(64, 96))
    with pytest.raises(BadWeights, match=r"tensor blk\.2\.ffn_up\.weight: expected shape \(96, 64\), found \(64, 96\)"):
        gguf_weights(file, gguf_config(file))


def test_head_counts_that_cannot_be():
    file = file_of("llama", {"attention.head_count_kv": 3})
    with pytest.raises(BadWeights, match="divisor of the 4 query heads, found 3"):
        gguf_weights(file, gguf_config(file))


NASTY = (None, True, 0, -1, 1, 2, 3, 7, 2**31 - 1, 2**64 - 1, 0.0, 0.5, -0.5, 1e308, 5e-324, math.nan, math.inf, "",
         "x", "yarn", [], [1, 2], [True] * 4, [[1]], ["a"])  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3moe", "gemma2", "gemma3"])
def test_any_value_in_any_key_is_read_or_refused(architecture):
    keys = [*BASE, "attention.key_length", "attention.value_length", "attention.scale", "attention.sliding_window",
            "attention.sliding_window_pattern", "attn_logit_softcapping", "final_logit_softcapping", "expert_count",
            "expert_used_count", "expert_feed_forward_length", "expert_weights_norm", "rope.dimension_count",
            "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
            "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "tokenizer.ggml.tokens",
            "general.architecture", "split.count"]  # fmt: skip
    outcomes = set()
    for key in keys:
        for value in NASTY:
            values = {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, key: value}
            try:
                gguf_config(file_of(architecture, values))
                outcomes.add("read")
            except BadWeights:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
