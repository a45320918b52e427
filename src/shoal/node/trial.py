"""One trial in a process of its own: an engine with given options runs workloads, and its figures go to stdout.

A fresh process per trial, since threads, memory and compiled kernels of one would colour the next. It may be given
fewer cores than the machine has, which stands for a smaller machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shoal.core.errors import LocalError, ShoalError
from shoal.core.request import Request, Sampling
from shoal.meter.rapl import joules_between, read
from shoal.node.config import OPTIONS, NodeConfig
from shoal.node.flags import ENGINE
from shoal.plan.objective import Measurement
from shoal.plan.workload import Ask, Workload, mixed, workload

TIMEOUT_S = 180.0
_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """cores: how many of this process's; repeats: measured runs after the warm-up, the median one counts."""

    cores: int | None = None
    repeats: int = 3
    seed: int = 0


class TrialFailed(LocalError):
    """The engine could not run with these options; its text says why."""

    code = "trial_failed"


def run_trial(config: NodeConfig, options: TrialOptions) -> Measurement:
    """Measure `config` on the mixed workload in a fresh process. TrialFailed when that process fails or hangs."""
    asked = json.dumps({"config": _spoken(config), "options": asdict(options)})
    command = [sys.executable, "-m", "shoal.node.trial"]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise TrialFailed(f"no answer within {TIMEOUT_S:.0f} s") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise TrialFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]) from None
    if "error" in answer:
        raise TrialFailed(answer["error"])
    return Measurement(**answer)


def _spoken(config: NodeConfig) -> dict[str, Any]:
    """The engine's options as their own parsers read them."""
    shown = {name: getattr(config, name) for name in (*ENGINE, "home")}
    shown = {name: "auto" if value is None else value for name, value in shown.items()}
    return {**shown, "home": str(config.home), "adapters": dict(config.adapters)}


def heard(spoken: Mapping[str, Any]) -> NodeConfig:
    """The configuration that `_spoken` wrote down."""
    parse = {option.name: option.parse for option in OPTIONS}
    return NodeConfig(**{name: parse[name](value) for name, value in spoken.items()})


async def measure(config: NodeConfig, options: TrialOptions) -> Measurement:
    """The median run by speed; every run has text of its own, so that no prefix cache knows it."""
    from shoal.node.compose import compose

    async with compose(config) as node:
        bench = Bench(node.service.generate, node.service.models()[0].id)
        await bench.run(workload("short_chat", 1, -1))
        runs = [await bench.run(mixed(options.seed + number)) for number in range(options.repeats)]
    return sorted(runs, key=lambda run: run.tokens_per_s)[len(runs) // 2]


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs workloads against a `Generate`."""

    generate: Any
    model: str

    async def run(self, work: Workload) -> Measurement:
        before, began = read(), time.perf_counter()
        times: list[list[float]] = []
        for turn in work.turns:
            times += await asyncio.gather(*(self._moments(ask) for ask in turn))
        wall_s, after = time.perf_counter() - began, read()
        energy_j = joules_between(before, after) if before and after else None
        ttft = [moments[1] - moments[0] for moments in times]
        tpot = [(moments[-1] - moments[1]) / max(1, len(moments) - 2) for moments in times]
        tokens = sum(len(moments) - 1 for moments in times)
        return Measurement(tokens, wall_s, _p95(ttft), _p95(tpot), energy_j)

    async def _moments(self, ask: Ask) -> list[float]:
        """When it was asked, and when each token came."""
        sampling = Sampling(temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True)
        moments = [time.perf_counter()]
        async for chunk in self.generate(Request(f"trial-{next(_ids)}", self.model, ask.prompt, sampling)):
            moments += [time.perf_counter()] * len(chunk.token_ids)
        return moments


def _p95(values: list[float]) -> float:
    """Nearest rank."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def main() -> int:
    """One JSON object in: options; one out: a `Measurement`, or {"error": text}."""
    asked = json.load(sys.stdin)
    options = TrialOptions(**asked["options"])
    if options.cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    try:
        answer = asdict(asyncio.run(measure(heard(asked["config"]), options)))
    except ShoalError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
