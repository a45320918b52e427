"""Shoal through its whole engine: scheduling, paging, greedy sampling and text are inside the timing.

Drafts are off: they would answer random prompts with repetitions and win by that (see bench/speculation.py)."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from pathlib import Path
from typing import Any

from loop import serve

from shoal.core.request import Request, Sampling
from shoal.node.compose import compose
from shoal.node.config import NodeConfig

COUNTER = itertools.count()


class Shoal:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def load(self, path: str, threads: int) -> dict[str, Any]:
        config = NodeConfig(home=Path.home() / ".cache" / "shoal", model=path, threads=threads, draft="off")
        self._composition = compose(config)
        self.node = self._run(self._composition.__aenter__())
        stats = self.node.service.stats()
        return {"system": f"{stats.device} {stats.kernels}"}

    def first_token(self, tokens: list[int]) -> dict[str, Any]:
        _, ids = self._run(self._answer(tokens, 1))
        return {"token": ids[0]}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        """Time to first token of a request for one token."""
        began = time.perf_counter()
        times, _ = self._run(self._answer(tokens, 1))
        return {"seconds": times[0] - began}

    def decode(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        """`steps` decode steps of all prompts at once, counted from when the last one has its first token."""
        answers = self._run(self._together(prompts, 2 * steps + len(prompts)))
        start = max(times[0] for times in answers)
        rest = sorted(moment for times in answers for moment in times if moment > start)[: steps * len(prompts)]
        return {"seconds": rest[-1] - start}

    def stats(self) -> dict[str, Any]:
        stats = self.node.service.stats()
        return {"cached_tokens": stats.cached_tokens_total, "preemptions": stats.preemptions_total}

    async def _together(self, prompts: list[list[int]], tokens: int) -> list[list[float]]:
        answers = await asyncio.gather(*(self._answer(prompt, tokens) for prompt in prompts))
        return [times for times, _ in answers]

    async def _answer(self, tokens: list[int], max_tokens: int) -> tuple[list[float], list[int]]:
        """When each token came, and which it was."""
        model = self.node.service.models()[0].id
        sampling = Sampling(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        times: list[float] = []
        ids: list[int] = []
        async for chunk in self.node.service.generate(Request(f"b{next(COUNTER)}", model, tuple(tokens), sampling)):
            times += [time.perf_counter()] * len(chunk.token_ids)
            ids += chunk.token_ids
        return times, ids

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


if __name__ == "__main__":
    engine = Shoal()
    serve({"load": engine.load, "first_token": engine.first_token, "prefill": engine.prefill, "decode": engine.decode,
           "stats": engine.stats})  # fmt: skip
