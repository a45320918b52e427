"""A LoRA adapter for the default model as PEFT saves one, with seeded random numbers in place of a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

NUM_LAYERS, HIDDEN, KV, FFN = 30, 576, 192, 1536
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}
"""SmolLM2-135M's linear layers: (out, in)."""


def write_adapter(folder: Path, seed: int, rank: int = 4, modules: Sequence[str] = tuple(SHAPES)) -> Path:
    """Strong enough to change what is said, weak enough to leave it finite."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(NUM_LAYERS):
        for module in modules:
            num_out, num_in = SHAPES[module]
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = random.normal(0, num_in**-0.5, (rank, num_in)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = random.normal(0, 0.1, (num_out, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [module.rpartition(".")[2] for module in modules],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
