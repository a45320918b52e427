"""config.json as it is found in the wild, in both of transformers' shapes, and every field that must be refused."""

import dataclasses
import json
import math
import struct

import numpy as np
import pytest
import transformers

from shoal.core.errors import BadWeights
from shoal.models.checkpoint import open_checkpoint
from shoal.models.huggingface_config import ARCHITECTURES, KNOWN, huggingface_config
from shoal.models.rope import rope_frequencies
from shoal.models.safetensors import read_safetensors

TINY = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 4096}  # fmt: skip
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
YARN = {"factor": 4.0, "original_max_position_embeddings": 1024}


def config_of(architecture: str, **values):
    return huggingface_config("config.json", {"architectures": [architecture], **TINY, **values})[0]


def configuration_class(architecture: str):
    if architecture.startswith("Gemma3"):
        return transformers.Gemma3TextConfig
    return getattr(transformers, architecture.replace("ForCausalLM", "Config"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_field_transformers_knows_is_read_checked_or_without_effect(architecture):
    """A field that a new version of transformers adds must be decided about, not ignored by accident."""
    theirs = set(configuration_class(architecture).__annotations__)
    assert "rope_parameters" in theirs
    assert theirs - KNOWN <= {"default_theta", "model_type", "attribute_map", "keys_to_ignore_at_inference"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_defaults_are_those_of_transformers(architecture):
    theirs = configuration_class(architecture)
    for field in dataclasses.fields(ARCHITECTURES[architecture]):
        if hasattr(theirs, field.name):
            assert getattr(ARCHITECTURES[architecture], field.name) == getattr(theirs, field.name), field.name
    number, per_token, size = ARCHITECTURES[architecture].experts
    if number:
        assert (number, per_token) == (theirs().num_local_experts, theirs.num_experts_per_tok)
        assert not size or size == theirs.moe_intermediate_size


ROPES = {
    "classic theta": {"rope_theta": 77_000.0},
    "classic null scaling": {"rope_theta": 77_000.0, "rope_scaling": None},
    "classic linear": {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "classic llama3": {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "classic yarn": {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", **YARN}},
    "new theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 77_000.0}},
    "new linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}},
    "new llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    "new yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, **YARN}},
    "yarn with everything": {
        "rope_scaling": {"rope_type": "yarn", **YARN, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.25}
    },
    "yarn mscale": {"rope_scaling": {"rope_type": "yarn", **YARN, "mscale": 0.7, "mscale_all_dim": 0.5}},
    "llama3 without its context": {
        "rope_scaling": {k: v for k, v in LLAMA3.items() if k[0] != "o"} | {"rope_type": "llama3"}
    },
}


@pytest.mark.parametrize("case", ROPES)
def test_rope_frequencies_are_those_of_transformers(case):
    (rope,) = config_of("LlamaForCausalLM", **ROPES[case]).rope_kinds
    theirs = transformers.LlamaConfig(**TINY, **json.loads(json.dumps(ROPES[case])))
    frequencies, scale = _transformers_rope(theirs)
    found, found_scale = rope_frequencies(rope, 16)
    np.testing.assert_allclose(found, frequencies, rtol=1e-6)
    assert found_scale == pytest.approx(scale)


def _transformers_rope(config) -> tuple[np.ndarray, float]:
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    return rotary.inv_freq.double().numpy(), rotary.attention_scaling


GEMMA_ROPES = {
    "classic": {"rope_theta": 5e5, "rope_local_base_freq": 20_000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "classic, left out": {},
    "new": {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
                                "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0}}},
}  # fmt: skip


@pytest.mark.parametrize("case", GEMMA_ROPES)
def test_gemma_3_has_two_ropes(case):
    config = config_of("Gemma3ForCausalLM", **GEMMA_ROPES[case], head_dim=16)
    theirs = transformers.Gemma3TextConfig(**TINY, **json.loads(json.dumps(GEMMA_ROPES[case])), head_dim=16,
                                           layer_types=["sliding_attention", "full_attention"] * 2)  # fmt: skip
    rotary = transformers.models.gemma3.modeling_gemma3.Gemma3RotaryEmbedding(theirs)
    for rope, kind in zip(config.rope_kinds, ("full_attention", "sliding_attention"), strict=True):
        expected = getattr(rotary, f"{kind}_inv_freq").double().numpy()
        np.testing.assert_allclose(rope_frequencies(rope, 16)[0], expected, rtol=1e-6)


WINDOWS = [
    ("LlamaForCausalLM", {"sliding_window": 8}, (None,) * 4),
    ("MistralForCausalLM", {"sliding_window": None}, (None,) * 4),
    ("MistralForCausalLM", {"sliding_window": 8}, (8,) * 4),
    ("MixtralForCausalLM", {"sliding_window": 8}, (8,) * 4),
    ("Qwen2ForCausalLM", {"sliding_window": 8, "use_sliding_window": False, "max_window_layers": 2}, (None,) * 4),
    ("Qwen2ForCausalLM", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}, (None,) * 3 + (8,)),
    ("Qwen3ForCausalLM", {"sliding_window": 8, "use_sliding_window": True,
                          "layer_types": ["sliding_attention", "full_attention"] * 2}, (8, None, 8, None)),
    ("Qwen3MoeForCausalLM", {"sliding_window": 8, "use_sliding_window": False}, (None,) * 4),
    ("Qwen3MoeForCausalLM", {"sliding_window": 8, "use_sliding_window": True}, (8,) * 4),
    ("Gemma2ForCausalLM", {}, (4096, None, 4096, None)),
    ("Gemma3ForCausalLM", {"sliding_window": 8, "sliding_window_pattern": 2}, (8, None, 8, None)),
    ("Gemma3ForCausalLM", {"sliding_window": 8, "layer_types": ["full_attention"] * 4}, (None,) * 4),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "values", "expected"), WINDOWS)
def test_windows(architecture, values, expected):
    assert config_of(architecture, **values).windows == expected


def test_a_published_gemma_3_config_that_leaves_out_most_fields():
    text = {"hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}  # fmt: skip
    values = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
    config = huggingface_config("config.json", values)[0]
    assert (config.vocab_size, config.num_heads, config.num_kv_heads, config.head_dim) == (262_208, 8, 4, 256)
    assert (config.context_length, config.is_tied, config.query_scale) == (131_072, True, 1 / 16)
    assert config.windows[:6] == (1024,) * 5 + (None,)
    assert (config.rope_kinds[0].scaling, config.rope_kinds[0].factor) == ("linear", 8)
    assert config.rope_kinds[1].scaling == "none"
    assert config.embed_scale == math.sqrt(2560)


REFUSED = [
    ("LlamaForCausalLM", {"architectures": ["GPT2LMHeadModel"]}, "architectures"),
    ("LlamaForCausalLM", {"architectures": None}, "architectures"),
    ("LlamaForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("LlamaForCausalLM", {"mlp_bias": True}, "mlp_bias"),
    ("LlamaForCausalLM", {"hidden_act": "relu"}, "hidden_act"),
    ("LlamaForCausalLM", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ("LlamaForCausalLM", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("LlamaForCausalLM", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_parameters.rope_type"),
    ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "longrope"}}, "rope_parameters.rope_type"),
    ("LlamaForCausalLM", {"rope_scaling": {"type": "linear"}}, "rope_parameters.factor"),
    ("LlamaForCausalLM", {"rope_scaling": {"type": "linear", "factor": -1}}, "rope_parameters.factor"),
    ("LlamaForCausalLM", {"rope_scaling": {"mrope_section": [1]}}, "rope_parameters.mrope_section"),
    ("LlamaForCausalLM", {"rope_scaling": {**YARN, "type": "yarn", "truncate": False}}, "rope_parameters.truncate"),
    ("LlamaForCausalLM", {"rope_scaling": {**LLAMA3, "type": "llama3", "high_freq_factor": 1}},
     "rope_parameters.high_freq_factor"),
    ("LlamaForCausalLM", {"rope_scaling": "linear"}, "rope_scaling"),
    ("LlamaForCausalLM", {"hidden_size": "64"}, "hidden_size"),
    ("LlamaForCausalLM", {"hidden_size": 2**40}, "hidden_size"),
    ("LlamaForCausalLM", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ("LlamaForCausalLM", {"rms_norm_eps": 0}, "rms_norm_eps"),
    ("LlamaForCausalLM", {"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ("MistralForCausalLM", {"sliding_window": 8, "layer_types": ["full_attention"] * 4}, "layer_types"),
    ("Qwen2ForCausalLM", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ("Qwen2ForCausalLM", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("Qwen2ForCausalLM", {"layer_types": ["sliding_attention"] * 4}, "sliding_window"),
    ("Gemma2ForCausalLM", {"hidden_activation": "gelu"}, "hidden_activation"),
    ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("Gemma3ForCausalLM", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters"),
    ("Gemma3ForConditionalGeneration", {"text_config": []}, "text_config"),
    ("Gemma3ForConditionalGeneration", {"text_config": {"attention_bias": True}}, "text_config.attention_bias"),
    ("Qwen3MoeForCausalLM", {"mlp_only_layers": [1]}, "mlp_only_layers"),
    ("Qwen3MoeForCausalLM", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
    ("Qwen3MoeForCausalLM", {"num_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "values", "field"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(architecture, values, field):
    with pytest.raises(BadWeights) as caught:
        config_of(architecture, **values)
    assert caught.value.field == field


def test_an_unknown_architecture_is_told_which_are_known():
    with pytest.raises(BadWeights, match=r"LlamaForCausalLM.*Qwen3MoeForCausalLM.*GPT2LMHeadModel"):
        config_of("GPT2LMHeadModel")


# ---- broken folders --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with one layer of Llama, its tensors written by hand."""
    config = {"architectures": ["LlamaForCausalLM"], **TINY, "num_hidden_layers": 1, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_safetensors(tmp_path / "model.safetensors", tensors())
    return tmp_path


def tensors() -> dict[str, tuple[int, ...]]:
    layer = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
             "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64),
             "mlp.down_proj": (64, 96), "input_layernorm": (64,), "post_attention_layernorm": (64,)}  # fmt: skip
    return {"model.embed_tokens.weight": (32, 64), "model.norm.weight": (64,)} | {
        f"model.layers.0.{name}.weight": shape for name, shape in layer.items()
    }


def header_of(shapes, dtype="F32") -> dict:
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return header


def write_safetensors(path, shapes, header=None, extra=b"") -> None:
    text = json.dumps(header_of(shapes) if header is None else header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * sum(map(math.prod, shapes.values()))) + extra)


def test_the_handmade_folder_opens(folder):
    assert len(open_checkpoint(folder).weights) == 11


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(folder):
    good, layer = tensors(), "model.layers.0"
    cases = [
        ({name: shape for name, shape in good.items() if "o_proj" not in name}, "blk.0.attn_output.weight", "nothing"),
        (good | {f"{layer}.self_attn.o_proj.bias": (64,)}, f"{layer}.self_attn.o_proj.bias", "nothing reads"),
        (good | {f"{layer}0.mlp.up_proj.bias": (64,)}, f"{layer}0.mlp.up_proj.bias", "nothing reads"),
        (good | {"model.layers.1.input_layernorm.weight": (64,)}, "blk.1.attn_norm.weight", "only tensors"),
        (good | {"model.norm.weight": (1, 64)}, "output_norm.weight", r"\(64,\), found \(1, 64\)"),
        (good | {"model.norm.weight": ()}, "output_norm.weight", r"\(64,\), found \(\)"),
        (good | {f"{layer}.self_attn.k_proj.weight": (64, 64)}, "blk.0.attn_k.weight", r"\(32, 64\)"),
    ]
    for shapes, name, words in cases:
        write_safetensors(folder / "model.safetensors", shapes)
        with pytest.raises(BadWeights, match=words) as caught:
            open_checkpoint(folder)
        assert caught.value.field == f"tensor {name}"


def test_missing_and_broken_json(folder):
    for text, words in [("", "JSON"), ("[]", "JSON object"), ('{"a":1,"a":2}', "once"), ("[" * 100_000, "JSON"),
                        ('{"a":NaN}', "finite"), ('{"a":' + "9" * 5000 + "}", "JSON")]:  # fmt: skip
        (folder / "config.json").write_text(text)
        with pytest.raises(BadWeights, match=words):
            open_checkpoint(folder)
    (folder / "config.json").write_bytes(b"\xff")
    with pytest.raises(BadWeights, match="UTF-8"):
        open_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadWeights, match=r"config\.json.*No such file"):
        open_checkpoint(folder)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", "model.bin", 3, ""])
def test_an_index_cannot_point_outside_its_folder(folder, place):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": place}}))
    with pytest.raises(BadWeights) as caught:
        open_checkpoint(folder)
    assert caught.value.field == "weight_map"


def test_an_index_that_disagrees_with_its_files(folder):
    names = list(tensors())
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names[1:], "model.safetensors")}))
    with pytest.raises(BadWeights, match="as the index says") as caught:
        open_checkpoint(folder)
    assert caught.value.field == f"tensor {names[0]}"
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*names, "lost.weight"], "model.safetensors")}))
    with pytest.raises(BadWeights, match="as the index says") as caught:
        open_checkpoint(folder)
    assert caught.value.field == "tensor lost.weight"


BROKEN_HEADERS = {
    "hole": lambda h: h["b"].update(data_offsets=[36, 68]),
    "overlap": lambda h: h["b"].update(data_offsets=[28, 60]),
    "negative": lambda h: h["a"].update(data_offsets=[-4, 32]),
    "backwards": lambda h: h["a"].update(data_offsets=[32, 0]),
    "beyond": lambda h: h["b"].update(data_offsets=[32, 2**62]),
    "wrong size": lambda h: h["a"].update(shape=[9]),
    "huge": lambda h: h["a"].update(shape=[2**62, 2**62]),
    "float shape": lambda h: h["a"].update(shape=[8.0]),
    "type": lambda h: h["a"].update(dtype="F64"),
    "no type": lambda h: h["a"].pop("dtype"),
    "not an object": lambda h: h.update(a=3),
}


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_broken_safetensors_headers(tmp_path, case):
    header = header_of({"a": (8,), "b": (8,)})
    BROKEN_HEADERS[case](header)
    write_safetensors(tmp_path / "x.safetensors", {"a": (8,), "b": (8,)}, header)
    with pytest.raises(BadWeights):
        read_safetensors(tmp_path / "x.safetensors", lambda name: False)


def test_safetensors_cut_at_every_length_or_with_any_byte_changed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": (2, 4), "b": (8,)})
    whole = path.read_bytes()

    def reads(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            return len(read_safetensors(path, lambda name: False)) == 2
        except BadWeights:
            return False

    assert reads(whole)
    assert not any(reads(whole[:length]) for length in range(len(whole)))
    assert not reads(whole + b"\0")
    changed = [
        reads(whole[:at] + bytes([value]) + whole[at + 1 :]) for at in range(len(whole) - 64) for value in b"\0\xff9]"
    ]
    assert changed.count(False) > len(changed) / 2


def test_misaligned_safetensors_are_copied_into_alignment(tmp_path):
    header = header_of({"a": (8,)}) | {"__metadata__": {"pad": ""}}
    for padding in range(4):
        header["__metadata__"]["pad"] = "x" * padding
        write_safetensors(tmp_path / "x.safetensors", {"a": (8,)}, header)
        data = read_safetensors(tmp_path / "x.safetensors", lambda name: False)["a"].data
        assert data.ctypes.data % 4 == 0


NASTY = (None, True, 0, -1, 1, 2, 3, 7, 2**31 - 1, 2**64, 10**400, 0.0, 0.5, -0.5, 1e308, 5e-324, "", "x",
         "full_attention", [], [None], [1, 2], ["sliding_attention"] * 4, {}, {"a": 1}, {"rope_type": []},
         {"full_attention": 3}, {"rope_type": "yarn", "factor": 1e308, "original_max_position_embeddings": 1},
         {"rope_type": "yarn", "factor": 5e-324, "mscale": 5e-324, "mscale_all_dim": 1e308})  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_value_in_any_field_is_read_or_refused(architecture):
    outcomes = set()
    for field in sorted(KNOWN | {"rope_theta", "rope_scaling", "sliding_window_pattern", "rope_local_base_freq",
                                 "original_max_position_embeddings", "partial_rotary_factor"}):  # fmt: skip
        for value in NASTY:
            values = TINY | {field: value, "use_sliding_window": value if field == "use_sliding_window" else True}
            text = {"text_config": values} if architecture.endswith("ConditionalGeneration") else values
            try:
                huggingface_config("config.json", {"architectures": [architecture], **text})
                outcomes.add("read")
            except BadWeights:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
