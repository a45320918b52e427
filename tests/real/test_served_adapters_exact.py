"""Adapters on quantised GGUF weights against PEFT on the same weights widened to float32, whole path to whole path.

llama.cpp's converter permutes the rows of Q and K; an adapter in Hugging Face's layout must still meet them.
"""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from peft_folder import write_adapter
from served import Served, served
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.real

TEXT = "The capital of France is Paris. Once upon a time there was a"
EXACT = ("--activation-bits", "16", "--kv-type", "f32")


def test_adapters_compute_what_peft_computes(default_gguf: Path, home: Path, tmp_path: Path) -> None:
    folders = {
        "everything": write_adapter(tmp_path / "everything", seed=1),
        "rotated": write_adapter(
            tmp_path / "rotated", seed=2, rank=8, modules=("self_attn.q_proj", "self_attn.k_proj")
        ),
    }
    with served(default_gguf, home, *EXACT, *(f"--adapter={name}={path}" for name, path in folders.items())) as server:
        tokens = server.post("/v1/tokenize", {"model": server.model, "prompt": TEXT}).json()["tokens"]
        found = {name: top_logprobs(server, name, tokens) for name in ("", *folders)}
    expected = peft_logprobs(default_gguf, folders, tokens)
    for name, values in found.items():
        assert values == pytest.approx(expected[name], abs=5e-3), name
    assert found["everything"] != pytest.approx(found[""], abs=0.1)
    assert found["rotated"] != pytest.approx(found[""], abs=0.1)


def top_logprobs(server: Served, name: str, tokens: list[int]) -> list[float]:
    body = {"model": name or server.model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "logprobs": 8}
    answer = server.post("/v1/completions", body).raise_for_status().json()
    return sorted(answer["choices"][0]["logprobs"]["top_logprobs"][0].values(), reverse=True)


def peft_logprobs(gguf: Path, folders: dict[str, Path], tokens: list[int]) -> dict[str, list[float]]:
    base = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32).eval()
    expected = {"": _top(base, tokens)}
    for name, folder in folders.items():
        adapted = peft.PeftModel.from_pretrained(base, str(folder)).eval()
        expected[name] = _top(adapted, tokens)
        base = adapted.unload()
    return expected


def _top(model: torch.nn.Module, tokens: list[int]) -> list[float]:
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0, -1]
    values: list[float] = torch.log_softmax(logits, -1).topk(8).values.tolist()
    return values
