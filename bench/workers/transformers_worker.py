"""transformers in float32 on the same GGUF file, which it dequantises at load."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from loop import serve
from transformers import AutoModelForCausalLM


class Transformers:
    def load(self, path: str, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        file = Path(path)
        self.model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        return {"system": torch.__version__}

    @torch.inference_mode()
    def first_token(self, tokens: list[int]) -> dict[str, Any]:
        logits = self.model(torch.tensor([tokens]), logits_to_keep=1).logits
        return {"token": int(logits[0, -1].argmax())}

    @torch.inference_mode()
    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        began = time.perf_counter()
        self.model(torch.tensor([tokens]), logits_to_keep=1)
        return {"seconds": time.perf_counter() - began}

    @torch.inference_mode()
    def decode(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        past = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1).past_key_values
        seconds = 0.0
        for step in range(steps):
            tokens = torch.tensor([[prompt[step % len(prompt)]] for prompt in prompts])
            began = time.perf_counter()
            past = self.model(tokens, past_key_values=past, use_cache=True, logits_to_keep=1).past_key_values
            seconds += time.perf_counter() - began
        return {"seconds": seconds}


if __name__ == "__main__":
    engine = Transformers()
    serve({"load": engine.load, "first_token": engine.first_token, "prefill": engine.prefill, "decode": engine.decode})
