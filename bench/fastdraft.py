"""A trained draft in the whole engine, against no drafting, prompt lookup and suffix trees, and against its own theory.

Claim: none is made in advance. A draft of the 135 M default model, trained for minutes on two cores, is measured:
acceptance rate, block efficiency and MBSU as FastDraft defines them (2411.11055), what a draft step and a verification
cost here, and the engine's tokens/s with it. Ratios below 1 say that the engine is right not to use it by default.

    python bench/fastdraft.py [--quick] [--model FILE] [--draft FILE] [--threads N]

Without --draft the file of `shoal draft train --target smollm2-135m` in the user's store is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

from common.report import finish, machine, summary, table
from shoal.core.request import Message, Request, Sampling
from shoal.models.draft_training.trial import Rules
from shoal.node.compose import Node, compose
from shoal.node.config import NodeConfig
from shoal.node.config_sources import load
from shoal.node.draft_report import measure_draft

TURNS = (
    ("What causes thunder?", "Rewrite this politely: send me the file now, you are late again and I cannot wait.",
     "Write a Python function that checks whether a word is a palindrome."),
    ("Name five uses of salt.", "Summarize: Bees live in colonies with one queen, many workers and some drones. "
     "Workers gather nectar and pollen, feed the young and build the comb.",
     "Write a Python class for a bank account with deposit and withdraw."),
    ("Why do leaves change colour in autumn?", "List the main points: Recycling glass saves energy. It can be melted "
     "again without loss. Coloured and clear glass are sorted first.",
     "Write a Python function that merges two sorted lists."),
    ("How does a bicycle stay upright?", "Rewrite this as a formal letter: we liked the room but the shower was cold.",
     "Write a Python function that counts the words in a text file."),
    ("Tell me a story about a fox and a river.", "Summarize: The printing press spread quickly through Europe in the "
     "fifteenth century. Books became cheaper, and more people learned to read.",
     "Write a Python program that prints the first hundred prime numbers."),
)  # fmt: skip
"""A turn's questions are asked of every mode once: a suffix tree that has seen an answer would only repeat it."""

COUNTER = itertools.count()

Times = dict[tuple[str, str], list[float]]


async def ask(node: Node, question: str, temperature: float, tokens: int) -> tuple[float, list[int]]:
    """(tokens/s after the first token, the answer's token ids)."""
    sampling = Sampling(temperature=temperature, max_tokens=tokens, seed=7, ignore_eos=True)
    model = node.service.models()[0].id
    request = Request(f"f{next(COUNTER)}", model, (Message("user", question),), sampling)
    ids: list[int] = []
    first = 0.0
    async for chunk in node.service.generate(request):
        first = first or time.perf_counter()
        ids += chunk.token_ids
    return (len(ids) - 1) / (time.perf_counter() - first), ids


async def measure(configs: dict[str, NodeConfig], turns: int, tokens: int) -> tuple[Times, int]:
    """Tokens/s of every mode and temperature; how many greedy answers differ from those without drafts."""
    times: Times = defaultdict(list)
    different = 0
    async with AsyncExitStack() as stack:
        nodes = {mode: await stack.enter_async_context(compose(config)) for mode, config in configs.items()}
        for node in nodes.values():
            await ask(node, "Say hello.", 0.0, 32)  # pages are touched
        for turn, heat in itertools.product(range(turns), (0.0, 0.6)):
            for question in TURNS[turn]:
                answers = {}
                for mode, node in nodes.items():
                    speed, answers[mode] = await ask(node, question, heat, tokens)
                    times[mode, f"{heat:g}"].append(speed)
                different += sum(answers[mode] != answers["off"] for mode in nodes)
            print(f"turn {turn + 1} of {turns}, temperature {heat:g}", file=sys.stderr)
    return times, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three turns instead of five, one length")
    parser.add_argument("--model", help="target: a GGUF file; default: the default model")
    parser.add_argument("--draft", type=Path, help="the draft's file; default: the store's")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    config = replace(load({}, os.environ).config, threads=options.threads, draft="off")
    config = replace(config, model=options.model) if options.model else config
    draft = options.draft or config.home / "drafts" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not draft.exists():
        parser.error(f"there is no draft at {draft}; make one: shoal draft train --target {config.model}")
    draft = draft.resolve()
    about = machine()
    modes = {
        "off": "off",
        "lookup": "lookup",
        "suffix": "suffix",
        "model": f"model:{draft}",
        "hybrid": f"hybrid:{draft}",
    }
    configs = {mode: replace(config, draft=value, max_running=1) for mode, value in modes.items()}
    times, different = asyncio.run(measure(configs, 3 if options.quick else 5, 96))
    target = Path(options.model) if options.model else _stored(config)
    lengths = (3,) if options.quick else (1, 3, 5)
    rules = [Rules(length=length, temperature=heat, max_tokens=64) for heat in (0.0, 0.6) for length in lengths]
    found = measure_draft(config, target, draft, rules)
    show(times, [asdict(row) for row in found.rows if row.kind == "all"])
    print(f"\nanswers that differ from those without drafts: {different}")
    ratios = {
        f"fastdraft_{name}_{other}_{'greedy' if heat == '0' else 'sampled'}": paired(times, name, other, heat)
        for name, other in (("model", "off"), ("hybrid", "off"), ("model", "lookup"), ("hybrid", "suffix"))
        for heat in ("0", "0.6")
    }
    rows = [{"mode": mode, "temperature": heat, **summary(values)} for (mode, heat), values in times.items()]
    bare = [asdict(row) for row in found.rows]
    finish("fastdraft", [*rows, *bare], ratios, {**about, "draft_bytes": found.draft_bytes, "different": different})


def paired(times: Times, name: str, other: str, heat: str) -> float:
    """Median over questions: the two answered each within seconds of the other."""
    both = zip(times[name, heat], times[other, heat], strict=True)
    return summary([mine / theirs for mine, theirs in both])["median"]


def show(times: Times, bare: list[dict[str, object]]) -> None:
    cells = []
    for (mode, heat), values in times.items():
        found = summary(values)
        cells.append((f"{mode}, temperature {heat}", *(f"{found[key]:.0f}" for key in ("median", "min", "max"))))
    table(("engine, tokens/s", "median", "min", "max"), cells)
    print()
    keys = ("acceptance_rate", "block_efficiency", "mbsu", "cost_ratio", "verify_ratio", "wall_clock")
    lines = [(f"temperature {row['temperature']}, length {row['length']}", *(f"{row[key]:.3f}" for key in keys))
             for row in bare]  # fmt: skip
    table(("bare loop", *keys), lines)


def _stored(config: NodeConfig) -> Path:
    from shoal.models.store import Store

    return Store(config.home).resolve(config.model)


if __name__ == "__main__":
    main()
