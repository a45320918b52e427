"""LoRA folders made by PEFT: the same logits as PEFT's own model, several adapters in one batch, refusals by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file

from shoal.core.errors import BadWeights, LocalError, Unsupported
from shoal.models.checkpoint import open_checkpoint
from shoal.models.forced import forced_logits
from shoal.models.lora import read_adapter
from shoal.models.torch_runner import TorchRunner

EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "everything": {"r": 8, "lora_alpha": 8, "target_modules": EVERY_LINEAR, "use_rslora": True},
    "one-layer": {"r": 2, "lora_alpha": 3, "target_modules": ["down_proj"], "layers_to_transform": [1]},
}
TOKENS = [list(range(3, 20)), list(range(40, 45)), [7] * 9, list(range(60, 30, -1))]


class Made(NamedTuple):
    base: Path
    folders: dict[str, Path]
    expected: dict[str, list[np.ndarray]]


def _model() -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=70, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config).eval()


def _logits(model: Any) -> list[np.ndarray]:
    with torch.inference_mode():
        return [model(torch.tensor([tokens])).logits[0].numpy() for tokens in TOKENS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("peft")
    _model().save_pretrained(root / "base")
    folders, expected = {}, {"none": _logits(_model())}
    for name, options in ADAPTERS.items():
        adapted = peft.get_peft_model(_model(), peft.LoraConfig(**options))
        with torch.no_grad():
            for key, weight in adapted.named_parameters():
                if "lora_B" in key:  # starts at zero, which would test nothing
                    weight.normal_(std=0.2)
        adapted.save_pretrained(root / name)
        folders[name], expected[name] = root / name, _logits(adapted.eval())
    return Made(root / "base", folders, expected)


def _runner(made: Made) -> TorchRunner:
    return TorchRunner(open_checkpoint(made.base), block_size=4, num_blocks=32)


def _assert_logits(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_equal_peft(made: Made, name: str) -> None:
    runner = _runner(made)
    runner.load_adapter(2, runner.read_adapter(made.folders[name]))
    _assert_logits(forced_logits(runner, TOKENS, adapters=[2] * 4), made.expected[name])
    assert max(np.abs(a - b).max() for a, b in zip(made.expected[name], made.expected["none"], strict=True)) > 0.01


def test_several_adapters_and_none_in_one_batch(made: Made) -> None:
    runner = _runner(made)
    names = ["everything", "none", "attention", "one-layer"]
    slots = {name: slot for slot, name in enumerate(made.folders)} | {"none": -1}
    for name, folder in made.folders.items():
        runner.load_adapter(slots[name], runner.read_adapter(folder))
    steps = [[4, 5, 1, 11], [1, 0, 1, 1]]
    found = forced_logits(runner, TOKENS, steps, adapters=[slots[name] for name in names])
    _assert_logits(found, [made.expected[name][index] for index, name in enumerate(names)])


def test_a_slot_is_replaced_dropped_and_then_empty(made: Made) -> None:
    runner = _runner(made)
    runner.load_adapter(0, runner.read_adapter(made.folders["attention"]))
    runner.load_adapter(0, runner.read_adapter(made.folders["everything"]))
    _assert_logits(forced_logits(runner, TOKENS, adapters=[0] * 4), made.expected["everything"])
    runner.drop_adapter(0)
    runner.drop_adapter(0)
    with pytest.raises(LocalError, match="slot 0 is empty"):
        forced_logits(runner, TOKENS, adapters=[0] * 4)
    _assert_logits(forced_logits(runner, TOKENS), made.expected["none"])


@pytest.mark.parametrize("slot", [-1, 8])
def test_a_slot_outside_the_range_is_refused(made: Made, slot: int) -> None:
    runner = _runner(made)
    adapter = runner.read_adapter(made.folders["attention"])
    with pytest.raises(LocalError, match=f"slot {slot}"):
        runner.load_adapter(slot, adapter)


def test_an_adapter_for_another_model_is_refused_and_leaves_the_slot_as_it_was(made: Made, tmp_path: Path) -> None:
    wide = hf.LlamaConfig(vocab_size=70, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    foreign = peft.get_peft_model(hf.LlamaForCausalLM(wide), peft.LoraConfig(target_modules=["q_proj"]))
    foreign.save_pretrained(tmp_path)
    runner = _runner(made)
    runner.load_adapter(0, runner.read_adapter(made.folders["attention"]))
    with pytest.raises(BadWeights) as caught:
        runner.load_adapter(0, runner.read_adapter(tmp_path))
    assert (caught.value.field, caught.value.found) == ("blk.0.attn_q.weight", "(64, 64)")
    _assert_logits(forced_logits(runner, TOKENS, adapters=[0] * 4), made.expected["attention"])


# ---- what is refused -------------------------------------------------------------------------------------------


def _copy(source: Path, target: Path, **config: Any) -> Path:
    """The adapter with some keys of its configuration changed."""
    target.mkdir(exist_ok=True)
    found = json.loads((source / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(found | config))
    (target / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    return target


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_dora", True), ("bias", "lora_only"), ("modules_to_save", ["lm_head"]), ("fan_in_fan_out", True),
     ("rank_pattern", {"q_proj": 2}), ("alpha_pattern", {"q_proj": 2}), ("lora_bias", True), ("use_qalora", True),
     ("trainable_token_indices", [1]), ("layer_replication", [[0, 2]]), ("target_parameters", ["x"]),
     ("init_lora_weights", "pissa"), ("peft_type", "IA3"), ("invented_next_year", {"x": 1})],
)  # fmt: skip
def test_features_it_does_not_compute_are_refused_by_name(made: Made, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(Unsupported, match=key):
        read_adapter(_copy(made.folders["attention"], tmp_path / "a", **{key: value}))


@pytest.mark.parametrize(("key", "value"), [("r", 0), ("r", "8"), ("r", True), ("lora_alpha", None), ("r", 2.5)])
def test_unusable_numbers_are_named(made: Made, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(BadWeights) as caught:
        read_adapter(_copy(made.folders["attention"], tmp_path / "a", **{key: value}))
    assert caught.value.field == key


Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

BROKEN: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], type[Exception], str]] = {
    "half": (lambda tensors: tensors.pop(Q_A), BadWeights, "both lora_A and lora_B"),
    "rank": (lambda tensors: tensors.update({Q_A: tensors[Q_A][:2]}), BadWeights, "rank 4"),
    "shape": (lambda tensors: tensors.update({Q_A: tensors[Q_A][0]}), BadWeights, "rank 4"),
    "embedding": (lambda tensors: tensors.update({"base_model.model.model.embed_tokens.lora_A": tensors[Q_A]}),
                  Unsupported, "embed_tokens"),
    "head": (lambda tensors: tensors.update({"base_model.model.lm_head.lora_A.weight": tensors[Q_A]}),
             Unsupported, "lm_head"),
    "nothing": (lambda tensors: tensors.clear(), BadWeights, "adapter"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tensors_are_refused(made: Made, tmp_path: Path, case: str) -> None:
    change, error, words = BROKEN[case]
    folder = _copy(made.folders["attention"], tmp_path / "a")
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(error, match=words):
        read_adapter(folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"adapter_config\.json"):
        read_adapter(tmp_path)
