"""One hardware profile: the engine with any acceleration methods on a chosen instruction set and number of threads."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from loop import serve

from shoal.engine.drafts.draft import Drafter
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.drafts.suffix import SuffixDrafter
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.kernels.build import available_isas
from shoal.models.checkpoint import open_checkpoint
from shoal.models.native_runner import NativeRunner
from shoal.models.tokenizer import load_tokenizer
from shoal.node.trial import Bench
from shoal.plan.features import mean, of_request
from shoal.plan.workload import Workload, workload

BLOCKS, BLOCK_SIZE, CHUNK = 512, 16, 512


class Profile:
    def load(self, path: str, threads: int, isa: str, activation_bits: int) -> dict[str, Any]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.checkpoint = open_checkpoint(Path(path))
        self.language = Language(load_tokenizer(self.checkpoint.tokenizer), None)
        self.options: dict[str, Any] = {"threads": threads, "isa": isa, "activation_bits": activation_bits}
        return {"isas": list(available_isas())}

    def measure(self, method: str, kinds: list[tuple[str, int]], seed: int) -> dict[str, Any]:
        """Tokens per second of each workload, in one engine made for this."""
        return {"speeds": asyncio.run(self._measure(method, kinds, seed))}

    async def _measure(self, method: str, kinds: list[tuple[str, int]], seed: int) -> list[float]:
        engine = self._engine(set(method.split("+")))
        try:
            bench = Bench(engine.generate, "m")
            await bench.run(workload("short_chat", 1, -1 - seed))  # pages are touched
            return [(await bench.run(workload(kind, size, seed))).tokens_per_s for kind, size in kinds]
        finally:
            await engine.stop()

    def _engine(self, parts: set[str]) -> Engine:
        runner = NativeRunner(self.checkpoint, num_blocks=BLOCKS, block_size=BLOCK_SIZE, **self.options)
        seats = 32 if "batching" in parts else 1
        scheduler = SchedulerConfig(
            BLOCK_SIZE, BLOCKS, max_batch_tokens=CHUNK, max_running=seats, prefill_chunk=CHUNK,
            prefix_cache="prefix" in parts,
        )  # fmt: skip
        config = self.checkpoint.config
        drafter: Drafter | None = None
        if "suffix" in parts:
            drafter = SuffixDrafter()
        elif "lookup" in parts:
            drafter = LookupDrafter()
        context = min(config.context_length, BLOCKS * BLOCK_SIZE)
        return Engine(EngineConfig("m", context, config.num_layers, scheduler), runner, self.language, drafter=drafter)

    def features(self, kinds: list[tuple[str, int]]) -> dict[str, Any]:
        """Of each workload, as they are known before it runs."""
        return {"features": [self._features(workload(kind, size, 0)) for kind, size in kinds]}

    def _features(self, work: Workload) -> dict[str, float]:
        before: list[list[int]] = []
        found = []
        for turn in work.turns:
            prompts = [self.language.tokenizer.encode(ask.prompt) for ask in turn]
            for prompt, ask in zip(prompts, turn, strict=True):
                cached = max((common(prompt, other) for other in before), default=0)
                found.append(of_request(prompt, ask.max_tokens, len(turn), cached))
            before += prompts
        return mean(found)


def common(first: list[int], second: list[int]) -> int:
    """Tokens two prompts begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


if __name__ == "__main__":
    profile = Profile()
    serve({"load": profile.load, "measure": profile.measure, "features": profile.features})
