"""Speculative decoding: tokens per second on recorded agent work and on chat, without drafts and with each drafter.

    python bench/speculation.py [--quick] [--model FILE] [--draft-model FILE] [--threads N] [--traces NAME ...]
                                [--turns N] [--into FILE] [--learned]

The traces (bench/traces, recorded by traces/record.py with the default model) are replayed request by request, each
replay in a fresh engine whose drafter knows nothing at the start; the modes take turns. Speed counts from each answer's
first token to its last. Every mode must answer exactly what `off` answers, or this stops.
`--into` adds what is measured to a file and reports all that is in it: several short runs make one long one.
A second part replays the same answers through the trees alone, without a model: tokens per step, path against tree
(nobody verifies trees here: it says what tree attention could add), and what a tree costs per token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.replay import answer, opened
from common.report import finish, machine, summary, table
from shoal.core.request import Message
from shoal.kernels.suffix_tree import Found, Limits, SuffixTree

TRACES = Path(__file__).parent / "traces"
TRACES_IN_ORDER = ("agentic", "workload", "chat")
LIMITS = Limits(cap=32)
Times = dict[tuple[str, str], list[float]]


@dataclass(slots=True)
class Replay:
    """Of one trace in one engine: what was answered, how fast, and what came of drafts."""

    answers: list[list[int]] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0
    wall_s: float = 0.0
    acceptance_length: float = 1.0
    acceptance_rate: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return sum(len(tokens) - 1 for tokens in self.answers) / self.seconds


def read_trace(name: str, quick: bool) -> list[dict[str, Any]]:
    parts = json.loads((TRACES / f"{name}.json").read_text())
    return [request for part in parts.values() for request in part[:: 2 if quick and name != "agentic" else 1]]


async def replay(options: argparse.Namespace, requests: list[dict[str, Any]], draft: str) -> Replay:
    done = Replay()
    async with opened(options.model, draft=draft, draft_saved=False, threads=options.threads) as node:
        model = node.service.models()[0].id
        await answer(node, {**requests[0], "max_tokens": 2})
        began = time.perf_counter()
        for asked in requests:
            _, tokens, seconds = await answer(node, asked)
            done.answers.append(tokens)
            done.seconds += seconds
        done.wall_s = time.perf_counter() - began
        stats = node.service.stats()
        for asked in requests:
            messages = tuple(Message(message["role"], message["content"]) for message in asked["messages"])
            done.prompts.append(await node.service.tokenize(model, messages, True))
    if stats.draft_checks_total:
        done.acceptance_length = 1 + stats.draft_accepted_total / stats.draft_checks_total
        done.acceptance_rate = stats.draft_accepted_total / stats.draft_tokens_total
    return done


def measure(options: argparse.Namespace, modes: list[str]) -> tuple[Times, dict[str, Replay]]:
    """All modes on every trace, in turns; the first `off` replay of each trace is kept for the simulation."""
    times: Times = defaultdict(list)
    truth: dict[str, Replay] = {}
    for turn in range(options.turns or (2 if options.quick else 5)):
        for trace in options.traces:
            requests = read_trace(trace, options.quick)
            for mode in ["off", *(modes if turn % 2 else modes[::-1])]:
                done = asyncio.run(replay(options, requests, mode))
                known = truth.setdefault(trace, done)
                if done.answers != known.answers:
                    raise SystemExit(f"{mode} answered otherwise than off on {trace}: it is not lossless")
                name = mode.split(":")[0]
                times[f"{trace} {name}", "tokens/s"].append(done.tokens_per_s)
                times[f"{trace} {name}", "tokens/s with prefill"].append(sum(map(len, done.answers)) / done.wall_s)
                if mode != "off":
                    times[f"{trace} {name}", "acceptance length"].append(done.acceptance_length)
                    times[f"{trace} {name}", "acceptance rate"].append(done.acceptance_rate)
                print(f"turn {turn} {trace} {mode}: {done.tokens_per_s:.1f} tokens/s", file=sys.stderr)
    return times, truth


# ---- the trees alone ------------------------------------------------------------------------------------------


def simulate(truth: Replay, is_tree: bool) -> dict[str, float]:
    """The answers as they were, drafted for by the two trees; every draft is checked, whatever it would cost."""
    past, steps, made, drafted, spent = SuffixTree(64), 0, 0, 0, 0.0
    for prompt, output in zip(truth.prompts, truth.answers, strict=True):
        own, tokens, seen = SuffixTree(64), array("i", [*prompt, output[0]]), 0
        at = 1
        while at < len(output):
            began = time.perf_counter()
            own.extend(tokens, seen)
            seen = len(tokens)
            here, there = own.look(LIMITS, is_tree=is_tree), past.look(LIMITS, tokens, is_tree=is_tree)
            spent += time.perf_counter() - began
            found = here if here.score >= there.score else there
            right = accepted(found, output[at:])
            step = min(right + 1, len(output) - at)
            tokens.extend(output[at : at + step])
            steps, made, drafted, at = steps + 1, made + step, drafted + len(found.tokens), at + step
        began = time.perf_counter()
        past.extend(output)
        past.close()
        spent += time.perf_counter() - began
    return {
        "tokens per step": made / steps,
        "acceptance rate": (made - steps) / max(drafted, 1),
        "us per token": spent / made * 1e6,
        "us per step": spent / steps * 1e6,
    }


def accepted(found: Found, truth: list[int]) -> int:
    """How far the truth goes along the branches of a draft."""
    children = {(parent, token): i for i, (parent, token) in enumerate(zip(found.parents, found.tokens, strict=True))}
    node = -1
    for count, token in enumerate(truth):
        if (child := children.get((node, token))) is None:
            return count
        node = child
    return len(truth)


def us_per_token(context: list[int]) -> float:
    """One token at a time, nothing accepted: append, look in the request's tree and in one of 100,000 past tokens."""
    past, own, tokens = SuffixTree(64), SuffixTree(64), array("i")
    while past.num_tokens < 100_000:
        past.extend([token + past.num_sequences % 7 for token in context])
        past.close()
    began = time.perf_counter()
    for index, token in enumerate(context):
        tokens.append(token)
        own.extend(tokens, index)
        own.look(LIMITS)
        past.look(LIMITS, tokens)
    return (time.perf_counter() - began) / len(context) * 1e6


# ---- report ---------------------------------------------------------------------------------------------------


def ratios_of(times: Times) -> dict[str, float]:
    def middle(name: str) -> float:
        return summary(times[name, "tokens/s"])["median"]

    out = {
        f"{mode}_{trace}": middle(f"{trace} {mode}") / middle(f"{trace} off")
        for trace in TRACES_IN_ORDER
        for mode in ("suffix", "lookup", "learned", "model", "hybrid")
        if (f"{trace} {mode}", "tokens/s") in times
    }
    for trace, name in (("agentic", "suffix_vs_lookup"), ("workload", "suffix_vs_lookup_workload")):
        if (f"{trace} lookup", "tokens/s") in times:
            out[name] = middle(f"{trace} suffix") / middle(f"{trace} lookup")
    return out


def add_to(file: Path, times: Times) -> None:
    """What `file` holds from earlier runs comes first in `times`; all of it is written back."""
    earlier = json.loads(file.read_text()) if file.exists() else []
    for case, figure, values in earlier:
        times[case, figure] = values + times[case, figure]
    file.write_text(json.dumps([(case, figure, values) for (case, figure), values in times.items()]) + "\n")


def least(runs: int, measured: Callable[[], float]) -> float:
    return min(measured() for _ in range(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two turns instead of five, half of workload and chat")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--traces", nargs="+", choices=TRACES_IN_ORDER, default=TRACES_IN_ORDER)
    parser.add_argument("--learned", action="store_true", help="also `draft = learned`, as far as it has learned here")
    parser.add_argument("--turns", type=int, help="default: five, or two with --quick")
    parser.add_argument("--into", type=Path, help="a file that keeps the measurements of several runs")
    parser.add_argument("--draft-model", help="a smaller model of the same vocabulary, by path or name")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    drafted = options.draft_model
    modes = ["lookup", "suffix", *(["learned"] if options.learned else [])]
    modes += [f"model:{drafted}", f"hybrid:{drafted}"] if drafted else []
    about = machine()
    times, truth = measure(options, modes)
    for trace, done in truth.items():
        for is_tree in (False, True):
            for figure, value in simulate(done, is_tree).items():
                times[f"{trace} simulated {'tree' if is_tree else 'path'}", figure].append(value)
    context = [token for done in truth.values() for prompt in done.prompts for token in prompt][:8000]
    times["suffix trees", "us per token, every token looked up"].append(least(3, lambda: us_per_token(context)))
    if options.into:
        add_to(options.into, times)
    rows = [{"case": case, "figure": figure, **summary(values)} for (case, figure), values in times.items()]
    cells = [
        (f"{row['case']}: {row['figure']}", *(f"{row[key]:.4g}" for key in ("median", "min", "max"))) for row in rows
    ]
    table(("case: figure", "median", "min", "max"), cells)
    ratios = ratios_of(times)
    print("\nceiling: an answer known beforehand goes as fast as a prefill; see bench/engine.py")
    table(("ratio", "times"), [(name, f"{value:.2f}") for name, value in ratios.items()])
    finish("speculation", rows, ratios, about)


if __name__ == "__main__":
    main()
