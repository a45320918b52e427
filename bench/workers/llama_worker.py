"""llama.cpp by its low-level API: batches are built, and logits looked at, outside the timing."""

from __future__ import annotations

import time
from typing import Any

import llama_cpp as llama
import numpy as np
from loop import serve


class Llama:
    def load(self, path: str, threads: int) -> dict[str, Any]:
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self.threads = threads
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        assert self.model, f"cannot load {path}"
        return {"system": llama.llama_print_system_info().decode().strip()}

    def first_token(self, tokens: list[int]) -> dict[str, Any]:
        context = self._context(512, 1)
        self._decode(context, tokens, list(range(len(tokens))), [0] * len(tokens), [len(tokens) - 1])
        token = int(np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (49152,)).argmax())
        llama.llama_free(context)
        return {"token": token}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        context = self._context(len(tokens) + 64, 1)
        count = len(tokens)
        seconds = self._decode(context, tokens, list(range(count)), [0] * count, [count - 1])
        llama.llama_free(context)
        return {"seconds": seconds}

    def decode(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        batch, length = len(prompts), len(prompts[0])
        context = self._context(batch * 256, batch)
        for index, prompt in enumerate(prompts):
            self._decode(context, prompt, list(range(length)), [index] * length, [length - 1])
        seconds = 0.0
        for step in range(steps):
            tokens = [prompt[step % length] for prompt in prompts]
            seconds += self._decode(context, tokens, [length + step] * batch, list(range(batch)), list(range(batch)))
        llama.llama_free(context)
        return {"seconds": seconds}

    def requantize(self, source: str, target: str) -> dict[str, Any]:
        """Q4_0, the format llama.cpp repacks for this kind of CPU: its fastest here."""
        params = llama.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize, params.nthread = llama.LLAMA_FTYPE_MOSTLY_Q4_0, True, 2
        assert llama.llama_model_quantize(source.encode(), target.encode(), params) == 0
        return {}

    def _context(self, size: int, sequences: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = size, 2048, 512, sequences
        params.n_threads = params.n_threads_batch = self.threads
        context = llama.llama_init_from_model(self.model, params)
        assert context, "no context"
        return context

    def _decode(
        self, context: Any, tokens: list[int], positions: list[int], owners: list[int], outputs: list[int]
    ) -> float:
        """Seconds of llama_decode alone."""
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, position, owner) in enumerate(zip(tokens, positions, owners, strict=True)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, i in outputs
            batch.seq_id[i][0] = owner
        began = time.perf_counter()
        status = llama.llama_decode(context, batch)
        llama.llama_synchronize(context)
        seconds = time.perf_counter() - began
        assert status == 0, f"llama_decode: {status}"
        llama.llama_batch_free(batch)
        return seconds


if __name__ == "__main__":
    engine = Llama()
    serve({"load": engine.load, "first_token": engine.first_token, "prefill": engine.prefill, "decode": engine.decode,
           "requantize": engine.requantize})  # fmt: skip
