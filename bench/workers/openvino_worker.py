"""OpenVINO GenAI's continuous batching on the same GGUF file; only its steps are timed. Its prefix cache is off."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from loop import serve

COUNTER = itertools.count()


class OpenVino:
    def load(self, path: str, threads: int) -> dict[str, Any]:
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching, scheduler.cache_size = False, 2
        scheduler.max_num_batched_tokens, scheduler.max_num_seqs = 4096, 64
        self.pipe = genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})
        return {"system": f"OpenVINO GenAI {genai.__version__}"}

    def first_token(self, tokens: list[int]) -> dict[str, Any]:
        handle = self._add(tokens, 1)
        self._finish()
        return {"token": int(handle.read_all()[0].generated_ids[0])}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        handle = self._add(tokens, 1)  # a request without its handle is dropped
        seconds = self._finish()
        assert len(handle.read_all()[0].generated_ids) == 1
        return {"seconds": seconds}

    def decode(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        handles = [self._add(prompt, steps + 4) for prompt in prompts]
        self.pipe.step()  # the prompts; the next one is a step of one token each
        self.pipe.step()
        began = time.perf_counter()
        for _ in range(steps):
            self.pipe.step()
        seconds = time.perf_counter() - began
        self._finish()
        made = [len(handle.read_all()[0].generated_ids) for handle in handles]
        assert made == [steps + 4] * len(prompts), f"expected {steps + 4} tokens of each prompt, found {made}"
        return {"seconds": seconds}

    def _add(self, tokens: list[int], count: int) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        return self.pipe.add_request(next(COUNTER), openvino.Tensor(np.array([tokens], np.int64)), config)

    def _finish(self) -> float:
        """Seconds until nothing is left to do."""
        began = time.perf_counter()
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        return time.perf_counter() - began


if __name__ == "__main__":
    engine = OpenVino()
    serve({"load": engine.load, "first_token": engine.first_token, "prefill": engine.prefill, "decode": engine.decode})
