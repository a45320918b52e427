"""Hugging Face folders and GGUF files of the same tiny random models, against transformers and the `gguf` package.

Oracles: transformers' own weights, rotary frequencies and configuration classes; gguf's table of tensor names; and
llama.cpp's row permutation, written here as its converter writes it.
"""

import dataclasses
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from safetensors.torch import save_file

from shoal.core.errors import BadWeights
from shoal.kernels.quant import dequantize, quantize_q8_0
from shoal.models.checkpoint import Checkpoint, open_checkpoint

SMALL = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 512,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
EXTRA = {
    "Llama": {"rope_theta": 50_000.0, "tie_word_embeddings": True},
    "Mistral": {"sliding_window": 64, "head_dim": 32},
    "Qwen2": {},
    "Qwen3": {"head_dim": 32},
    "Gemma2": {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32},
    "Gemma3": {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32, "sliding_window_pattern": 3},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
                 "head_dim": 32},
}  # fmt: skip
ARCH = {"Llama": MODEL_ARCH.LLAMA, "Mistral": MODEL_ARCH.LLAMA, "Mixtral": MODEL_ARCH.LLAMA, "Qwen2": MODEL_ARCH.QWEN2,
        "Qwen3": MODEL_ARCH.QWEN3, "Qwen3Moe": MODEL_ARCH.QWEN3MOE, "Gemma2": MODEL_ARCH.GEMMA2,
        "Gemma3": MODEL_ARCH.GEMMA3}  # fmt: skip


def config_class(kind: str):
    return getattr(transformers, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, tuple[torch.nn.Module, Path]]:
    """Random model and saved folder of every family."""
    torch.manual_seed(0)
    made = {}
    for kind, extra in EXTRA.items():
        model = getattr(transformers, f"{kind}ForCausalLM")(config_class(kind)(**SMALL, **extra))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # norms and biases start at 0 or 1, where mistakes hide
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        made[kind] = (model, folder)
    return made


def values(checkpoint: Checkpoint, name: str) -> np.ndarray:
    tensor = checkpoint.weights[name]
    return dequantize(tensor.storage, tensor.data, tensor.shape[-1]).reshape(tensor.shape)


def expected_weights(kind: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Canonical name to values, by gguf's own table of names and the model as it is in memory."""
    table = get_tensor_name_map(ARCH[kind], SMALL["num_hidden_layers"])
    expected = {}
    for name, tensor in model.state_dict().items():
        array = tensor.float().numpy()
        if name.endswith("experts.gate_up_proj"):
            layer = name.split(".")[2]
            gate, up = np.split(array, 2, axis=1)
            expected |= {f"blk.{layer}.ffn_gate_exps.weight": gate, f"blk.{layer}.ffn_up_exps.weight": up}
        elif name.endswith("experts.down_proj"):
            expected[f"blk.{name.split('.')[2]}.ffn_down_exps.weight"] = array
        elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
            canonical = table.get_name(name, try_suffixes=(".weight", ".bias"))
            expected[canonical] = array + 1 if kind.startswith("Gemma") and name.endswith("norm.weight") else array
    return expected


@pytest.mark.parametrize("kind", EXTRA)
def test_folder_has_the_model_s_weights_under_gguf_s_names(models, kind):
    model, folder = models[kind]
    checkpoint = open_checkpoint(folder)
    expected = expected_weights(kind, model)
    assert set(checkpoint.weights) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(values(checkpoint, name), array), name
    assert checkpoint.quantization == "F32"
    assert checkpoint.size_bytes == (folder / "model.safetensors").stat().st_size
    assert checkpoint.tokenizer.folder == folder


@pytest.mark.parametrize("kind", EXTRA)
def test_matrices_of_a_folder_are_views_of_the_file(models, kind):
    for name, tensor in open_checkpoint(models[kind][1]).weights.items():
        is_stack = len(tensor.shape) == 3
        is_shifted_norm = kind.startswith("Gemma") and len(tensor.shape) == 1
        assert tensor.data.flags.writeable == (is_stack or is_shifted_norm), name


def test_configs_say_what_transformers_configs_say(models):
    found = {kind: open_checkpoint(folder).config for kind, (_, folder) in models.items()}
    assert {kind: config.family for kind, config in found.items()} == {
        "Llama": "llama", "Mistral": "llama", "Qwen2": "qwen2", "Qwen3": "qwen3", "Gemma2": "gemma2",
        "Gemma3": "gemma3", "Mixtral": "mixtral", "Qwen3Moe": "qwen3moe",
    }  # fmt: skip
    assert found["Llama"].is_tied
    assert found["Llama"].rope_kinds[0].theta == 50_000
    assert found["Mistral"].windows == (64, 64, 64)
    assert found["Qwen2"].has_qkv_bias
    assert found["Qwen3"].has_qk_norm
    assert found["Gemma2"].windows == (64, None, 64)
    assert (found["Gemma2"].attn_softcap, found["Gemma2"].logit_softcap) == (50, 30)
    assert found["Gemma2"].query_scale == 32**-0.5
    assert found["Gemma3"].windows == (64, 64, None)
    assert found["Gemma3"].ropes == (1, 1, 0)
    assert [rope.theta for rope in found["Gemma3"].rope_kinds] == [1_000_000, 10_000]
    assert (found["Gemma3"].attn_softcap, found["Gemma3"].embed_scale) == (0, 8)
    assert (found["Mixtral"].num_experts, found["Mixtral"].expert_ffn_size) == (4, 96)
    assert found["Mixtral"].renormalize_experts
    assert (found["Qwen3Moe"].experts_per_token, found["Qwen3Moe"].expert_ffn_size) == (2, 32)


# ---- the same model as a GGUF file -----------------------------------------------------------------------------


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """As convert_hf_to_gguf.py does to Q and K of the llama architecture."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path: Path, kind: str, model: torch.nn.Module, storage: str = "F32") -> Path:
    config, arch = model.config, ARCH[kind]
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(f"tiny {kind}")
    writer.add_chat_template("{{ messages }}")
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(3)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    head_dim = getattr(config, "head_dim", None) or 16
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["full_attention"]["rope_theta"] if kind == "Gemma3" else rope["rope_theta"])
    if kind in ("Mistral", "Gemma2", "Gemma3"):
        writer.add_sliding_window(64)
    if kind == "Gemma3":
        writer.add_sliding_window_pattern([True, True, False])
    if kind == "Gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if kind in ("Mixtral", "Qwen3Moe"):
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(32 if kind == "Qwen3Moe" else 96)
    for name, array in expected_weights(kind, model).items():
        if arch == MODEL_ARCH.LLAMA and (".attn_q." in name or ".attn_k." in name):
            array = permute(array, 4 if ".attn_q." in name else 2)
        array = np.ascontiguousarray(array)
        if storage == "Q8_0" and array.ndim > 1:
            writer.add_tensor(name, quantize_q8_0(array), raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("storage", ["F32", "Q8_0"])
def test_gguf_and_folder_open_as_the_same_model(models, tmp_path, kind, storage):
    model, folder = models[kind]
    here = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", kind, model, storage))
    there = open_checkpoint(folder)
    exact = dataclasses.replace(there.config, norm_eps=here.config.norm_eps)  # a float32 in GGUF
    assert here.config == exact
    assert here.config.norm_eps == pytest.approx(there.config.norm_eps)
    assert here.weights.keys() == there.weights.keys()
    for name, tensor in there.weights.items():
        expected = values(there, name)
        if storage == "Q8_0" and expected.ndim > 1:
            expected = dequantize("Q8_0", quantize_q8_0(expected), expected.shape[-1]).reshape(expected.shape)
        assert here.weights[name].shape == tensor.shape
        assert np.array_equal(values(here, name), expected), name
    assert (here.name, here.chat_template, here.quantization) == (f"tiny {kind}", "{{ messages }}", storage)
    assert here.tokenizer.metadata == {"tokenizer.chat_template": "{{ messages }}"}


def test_only_moved_rows_and_stacks_are_copied(models, tmp_path):
    checkpoint = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", "Llama", models["Llama"][0]))
    copied = {name for name, tensor in checkpoint.weights.items() if tensor.data.flags.writeable}
    assert copied == {f"blk.{layer}.attn_{letter}.weight" for layer in range(3) for letter in "qk"}


def test_default_model_opens(default_gguf):
    checkpoint = open_checkpoint(default_gguf)
    config = checkpoint.config
    assert (config.family, config.num_layers, config.hidden_size, config.vocab_size) == ("llama", 30, 576, 49_152)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.is_tied) == (9, 3, 64, True)
    assert (config.rope_kinds[0].theta, config.context_length) == (100_000, 8192)
    assert checkpoint.quantization == "Q4_1"
    assert len(checkpoint.weights) == 30 * 9 + 2
    assert "<|im_start|>" in (checkpoint.chat_template or "")
    assert len(checkpoint.tokenizer.metadata["tokenizer.ggml.tokens"]) == 49_152


# ---- other ways a folder can lie -------------------------------------------------------------------------------


def assert_same_weights(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.weights.keys() == expected.weights.keys()
    for name in expected.weights:
        assert np.array_equal(values(found, name), values(expected, name)), name


def copy_config(source: Path, folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    config = json.loads((source / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return folder


@pytest.mark.parametrize("kind", ["Llama", "Mixtral"])
def test_shards(models, tmp_path, kind):
    model, folder = models[kind]
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint.files) > 2
    assert checkpoint.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert_same_weights(checkpoint, open_checkpoint(folder))


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe"])
def test_fused_experts(models, tmp_path, kind):
    """transformers 5 keeps gate and up of all experts in one tensor, and some checkpoints are saved so."""
    model, folder = models[kind]
    save_file(model.state_dict(), copy_config(folder, tmp_path) / "model.safetensors")
    assert_same_weights(open_checkpoint(tmp_path), open_checkpoint(folder))


@pytest.mark.parametrize(("dtype", "storage"), [(torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_half_precision(models, tmp_path, dtype, storage):
    model, folder = models["Gemma2"]
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, copy_config(folder, tmp_path) / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.quantization == storage
    assert checkpoint.weights["blk.0.attn_q.weight"].storage == storage
    norm = state["model.layers.0.input_layernorm.weight"].float().numpy() + 1
    assert np.array_equal(values(checkpoint, "blk.0.attn_norm.weight"), norm)


@pytest.mark.parametrize("layout", ["language_model.model.{}", "model.language_model.{}"])
def test_language_model_of_a_vision_model(models, tmp_path, layout):
    model, folder = models["Gemma3"]
    state = {layout.format(name.removeprefix("model.")): tensor for name, tensor in model.state_dict().items()
             if name != "lm_head.weight"}  # fmt: skip
    state |= {"vision_tower.x": torch.zeros(2), "model.multi_modal_projector.y": torch.zeros(2, dtype=torch.int64)}
    inner = json.loads((folder / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": inner}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    save_file(state, tmp_path / "model.safetensors")
    assert_same_weights(open_checkpoint(tmp_path), open_checkpoint(folder))


def test_ignored_tensors_and_chat_templates(models, tmp_path):
    model, folder = models["Llama"]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # lm_head too, though it is tied
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(state, copy_config(folder, tmp_path) / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert_same_weights(checkpoint, open_checkpoint(folder))
    assert checkpoint.chat_template is None
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert open_checkpoint(tmp_path).chat_template == "yes"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "plain"}))
    assert open_checkpoint(tmp_path).chat_template == "plain"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert open_checkpoint(tmp_path).chat_template == "file"


def test_a_whole_model_with_a_few_header_bytes_changed_opens_or_is_refused(models, tmp_path):
    data = write_gguf(tmp_path / "tiny.gguf", "Gemma3", models["Gemma3"][0]).read_bytes()
    header = data.index(b"output_norm.weight")  # the tensor whose description comes last
    random = np.random.default_rng(5)
    opened = 0
    for _ in range(400):
        changed = bytearray(data)
        for at in random.integers(0, header, random.integers(1, 4)):
            changed[at] = random.integers(0, 256)
        (tmp_path / "changed.gguf").write_bytes(changed)
        try:
            opened += bool(open_checkpoint(tmp_path / "changed.gguf").weights)
        except BadWeights:
            continue
    assert 0 < opened < 400
