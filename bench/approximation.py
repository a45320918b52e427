"""What leaving things out costs and saves: quality, speed and bytes side by side, for each budget.

    python bench/approximation.py [--quick] [--model FILE] [--threads N] [--long N]

Quality is teacher-forced through the engine's own scheduler, cache and approximator: the generated tasks' answers
(needle, many needles, variable tracking, aggregation, 512 to 8k tokens) and held-out prose (Python's own documentation,
which ships with Python). `right`: the whole answer is what the model would say; a 135 M model solves few of them, so
`right` of the full cache stands in the first row, and KL and top-1 agreement with the full cache are the finer measure.
The first token of an answer comes from the whole prompt whatever is dropped afterwards, so it is not counted in these.

The draft is the target itself (lookup in the prompt, else its first 5/6 of the layers; SpecPC: its first third): no
smaller model of its tokenizer is published. `oracle` looks ahead with the target's own tokens. Lookahead starts behind
the answer's first, forced token; where a copy is asked for the lookup finds the very passage, so tasks flatter
SpecKV, and
prose is the sober measure. Decode speed leaves out the acting, which is a column of its own.
"""

from __future__ import annotations

import argparse
import random
import time
from array import array
from collections import defaultdict
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from common.report import finish, machine, summary, table
from engine import default_model
from shoal.core.request import Approximation, KvMethod, PromptMethod, Request
from shoal.engine.approximate.approximator import Approximator
from shoal.engine.approximate.budgets import Budgets
from shoal.engine.approximate.core_neurons import Clusters, cluster, count_core, most_frequent
from shoal.engine.approximate.passes import View, blocks_for
from shoal.engine.batching import build_batch
from shoal.engine.plan import SchedulerConfig
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence
from shoal.models.checkpoint import open_checkpoint
from shoal.models.native_runner import NativeRunner
from shoal.models.tokenizer import Tokenizer, load_tokenizer

BLOCK = 16
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.",
         "A train left the station in the morning.", "Nobody saw the cat on the roof.", "It rained for two days.",
         "She put the letter on the table.", "The market opens early on Fridays.")  # fmt: skip
CITIES = ("Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Oslo", "Dublin", "Prague", "Athens")


@dataclass(frozen=True, slots=True)
class Task:
    """`answer` is forced behind `prompt`; token ids."""

    kind: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to leave things out; `neurons` overrules how core neurons are chosen."""

    name: str
    wish: Approximation | None = None
    neurons: str = ""


@dataclass(slots=True)
class Run:
    """logits float32 (answer tokens, vocab): row i decides answer token i. Bytes of cache at the end."""

    logits: np.ndarray
    ttft_s: float
    decode_s: float
    cache_bytes: int


@dataclass(slots=True)
class Scores:
    right: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)


class Rig:
    """The engine's scheduler, cache and approximator over one runner, one sequence at a time, on forced tokens."""

    def __init__(self, model: Path, longest: int, threads: int | None) -> None:
        checkpoint = open_checkpoint(model)
        self.tokenizer: Tokenizer = load_tokenizer(checkpoint.tokenizer)
        self.blocks = blocks_for(3 * longest, BLOCK)
        self.runner = NativeRunner(checkpoint, num_blocks=self.blocks, block_size=BLOCK, threads=threads)
        self.network = self.runner.approximation
        self.clusters: Clusters | None = None
        self.restart()

    def restart(self) -> None:
        """An empty prefix cache."""
        self.scheduler = Scheduler(SchedulerConfig(block_size=BLOCK, num_blocks=self.blocks))
        self.approximator = Approximator(self.runner, self.network, self.scheduler)

    def run(self, task: Task, variant: Variant) -> Run:
        seq = self._sequence(task, variant)
        self.scheduler.add(seq)
        began, rows = time.perf_counter(), list[np.ndarray]()
        first = began
        while len(rows) < len(task.answer):
            self.approximator.act()
            plan = self.scheduler.schedule()
            logits = self.approximator.run(plan)[0] if plan.is_split else self.runner.run(build_batch(plan, BLOCK))
            self.scheduler.commit(plan)
            if plan.entries[0].num_outputs:
                rows.append(logits[-1].copy())
                self.scheduler.append(seq, task.answer[len(rows) - 1])
                first = time.perf_counter() if len(rows) == 1 else first
        ended = time.perf_counter()
        cached = len(seq.blocks) * BLOCK * self.network.pair_bytes
        self.scheduler.finish(seq)
        self.approximator.sweep()
        return Run(np.stack(rows), first - began, ended - first, cached)

    def _sequence(self, task: Task, variant: Variant) -> Sequence:
        request = Request("bench", "m", task.prompt, approximation=variant.wish)
        stage = Budgets(self.network, self.blocks, BLOCK).stage(request, len(task.prompt))
        seq = Sequence(array("i", task.prompt), len(task.prompt) + len(task.answer) + 1, stage=stage)
        if stage is not None:
            stage.neurons = self._neurons(task, variant)
            if stage.depth:
                seq.outputs_from = len(task.prompt)
        return seq

    def _neurons(self, task: Task, variant: Variant) -> np.ndarray | None:
        """None where the approximator chooses (stability-guided)."""
        share = variant.wish.core_neurons if variant.wish else None
        if share is None or not variant.neurons:
            return None
        if variant.neurons == "similarity":
            assert self.clusters is not None
            return most_frequent(self.clusters.nearest(_feature(self.core_counts(task.prompt))), share)
        counts = self.core_counts(task.prompt)
        return most_frequent(np.random.default_rng(0).permutation(counts.size).reshape(counts.shape), share)

    def core_counts(self, tokens: List[int]) -> np.ndarray:
        """For how many of the last 128 tokens, read without what stands before them, each neuron is core."""
        rows = np.array(tokens[-128:], np.int32)
        taken = self.scheduler.borrow(Sequence(array("i", [0]), 1), blocks_for(len(rows), BLOCK))
        assert taken is not None
        view = View(taken, [], 0, -1, BLOCK)
        counts = count_core(self.network.activations(view.batch(rows, 0)))
        self.scheduler.give_back(taken)
        return counts


def _feature(counts: np.ndarray) -> np.ndarray:
    """What sentences are compared by: core counts of a late layer (the paper's 25 of 32)."""
    late: np.ndarray = counts[len(counts) * 25 // 32].astype(np.float64)
    return late / max(float(np.linalg.norm(late)), 1e-12)


# ---- tasks ---------------------------------------------------------------------------------------------------


def make_task(kind: str, length: int, seed: int, tokenizer: Tokenizer) -> Task:
    """A prompt of about `length` tokens, with what matters at random places in noise."""
    rng = random.Random(f"{kind}-{length}-{seed}")
    facts, question, answer = _facts(kind, rng)
    room = length - len(tokenizer.encode(" ".join([*facts, question])))
    noise: list[str] = []
    while room > 0:
        noise.append(rng.choice(NOISE))
        room -= len(tokenizer.encode(" " + noise[-1]))
    places = sorted(rng.sample(range(len(noise) + 1), len(facts))) if len(noise) >= len(facts) else [0] * len(facts)
    for place, fact in reversed(list(zip(places, facts, strict=True))):
        noise.insert(place, fact)
    return Task(kind, tuple(tokenizer.encode(" ".join(noise) + "\n" + question)), tuple(tokenizer.encode(answer)))


def _facts(kind: str, rng: random.Random) -> tuple[list[str], str, str]:
    cities, numbers = rng.sample(CITIES, 6), [str(rng.randrange(10000, 99999)) for _ in range(6)]
    match kind:
        case "needle":
            return (
                [f"The magic number of {cities[0]} is {numbers[0]}."],
                f"The magic number of {cities[0]} is",
                f" {numbers[0]}.",
            )
        case "needles":
            facts = [f"The magic number of {c} is {n}." for c, n in zip(cities, numbers, strict=True)]
            return facts, f"The magic number of {cities[2]} is", f" {numbers[2]}."
        case "variables":
            facts = [f"VAR X1 = {numbers[0]}.", "VAR X2 = X1.", "VAR X3 = X2.", f"VAR Y1 = {numbers[1]}."]
            return facts, f"VAR Y1 = {numbers[1]}. All of X1, X2 and X3 are equal. VAR X3 =", f" {numbers[0]}."
        case _:
            word, rare = rng.sample(("apple", "river", "stone", "cloud"), 2)
            facts = [f"The word is {word}."] * 6 + [f"The word is {rare}."] * 2
            return facts, "Most often the word is", f" {word}."


def prose(tokenizer: Tokenizer, length: int, answer: int, count: int) -> list[Task]:
    """Held-out text: prompts of `length` tokens, continued by `answer` tokens."""
    ids = tokenizer.encode("\n\n".join(topics[key] for key in sorted(topics))[: 12 * count * (length + answer)])
    step = length + answer
    return [
        Task("prose", tuple(ids[i * step : i * step + length]), tuple(ids[i * step + length : (i + 1) * step]))
        for i in range(count)
    ]


# ---- quality -------------------------------------------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    whole: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return whole


def judge(scores: Scores, task: Task, run: Run, whole: Run) -> None:
    answer = np.array(task.answer)
    got, full = log_softmax(run.logits), log_softmax(whole.logits)
    scores.right.append(float((got.argmax(axis=1) == answer).all()))
    scores.nats.append(float(-got[np.arange(len(answer)), answer][1:].mean()))
    scores.kl.append(float((np.exp(full) * (full - got)).sum(axis=1)[1:].mean()))
    scores.top1.append(float((got.argmax(axis=1) == full.argmax(axis=1))[1:].mean()))
    scores.bytes.append(run.cache_bytes)


def quality(rig: Rig, tasks: List[Task], variants: List[Variant]) -> dict[str, Scores]:
    found: dict[str, Scores] = defaultdict(Scores)
    for task in tasks:
        rig.restart()
        whole = rig.run(task, variants[0])
        for variant in variants:
            judge(found[variant.name], task, rig.run(task, variant) if variant.wish else whole, whole)
    return found


def train_clusters(rig: Rig, count: int) -> None:
    """Clusters of prose that no task uses (its end)."""
    ids = rig.tokenizer.encode("\n".join(topics[key] for key in sorted(topics, reverse=True))[: 1000 * count])
    counts = np.stack([rig.core_counts(ids[i * 128 : (i + 1) * 128]) for i in range(min(count, len(ids) // 128))])
    rig.clusters = cluster(np.stack([_feature(each) for each in counts]), counts, 4)


def kv_variants(budgets: List[int]) -> list[Variant]:
    methods: tuple[KvMethod, ...] = ("speckv", "oracle", "snapkv", "streaming", "random")
    return [Variant(f"{m} {b}", Approximation(kv_budget=b, kv_method=m)) for b in budgets for m in methods]


def prompt_variants(budgets: List[int]) -> list[Variant]:
    methods: tuple[PromptMethod, ...] = ("specpc", "streaming", "random")
    found = [
        Variant(f"prompt {m} {b}", Approximation(prompt_budget=b, prompt_method=m)) for b in budgets for m in methods
    ]
    return [*found, *(Variant(f"speckv-pc {b}/{b // 2}", Approximation(b // 2, "speckv", b)) for b in budgets)]


def core_variants(shares: List[float]) -> list[Variant]:
    modes = ("", "similarity", "random")
    return [
        Variant(f"core {mode or 'stability'} {s}", Approximation(core_neurons=s), mode)
        for s in shares
        for mode in modes
    ]


# ---- speed ---------------------------------------------------------------------------------------------------

FAST = [
    Variant("whole"), Variant("speckv 256", Approximation(kv_budget=256)),
    Variant("snapkv 256", Approximation(kv_budget=256, kv_method="snapkv")),
    Variant("specpc 512", Approximation(prompt_budget=512)),
    Variant("speckv-pc 512/256", Approximation(256, "speckv", 512)),
    Variant("core 0.4", Approximation(core_neurons=0.4)),
]  # fmt: skip


def speed(rig: Rig, length: int, steps: int, turns: int) -> dict[str, dict[str, list[float]]]:
    """Fresh caches, variants in turns. Acting on a compressed sequence falls between its first and second token."""
    found: dict[str, dict[str, list[float]]] = {variant.name: defaultdict(list) for variant in FAST}
    rng = np.random.default_rng(0)
    for _ in range(turns):
        task = Task(
            "", tuple(rng.integers(1000, 40000, length).tolist()), tuple(rng.integers(1000, 40000, steps).tolist())
        )
        for variant in FAST:
            rig.restart()
            short = rig.run(Task("", task.prompt, task.answer[:2]), variant)
            rig.restart()
            run = rig.run(task, variant)
            found[variant.name]["ttft_s"].append(run.ttft_s)
            found[variant.name]["act_s"].append(short.decode_s)
            found[variant.name]["decode"].append((steps - 2) / max(run.decode_s - short.decode_s, 1e-9))
            found[variant.name]["mb"].append(run.cache_bytes / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter texts, fewer of them")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--long", type=int, help="tasks of this many tokens alone, one of each kind, budgets 256, 512")
    options = parser.parse_args()
    if options.long:
        measure_long(options)
        return
    lengths, budgets = (
        ((512, 1024), (64, 128)) if options.quick else ((512, 1024, 2048, 4096, 7936), (64, 128, 256, 512))
    )
    rig = Rig(options.model or default_model(), max(lengths) + 200, options.threads)
    rows: list[dict[str, object]] = []
    train_clusters(rig, 12 if options.quick else 60)
    kinds, per_kind = ("needle", "needles", "variables", "aggregation"), 1 if options.quick else 4
    variants = [Variant("whole"), *kv_variants(budgets), *prompt_variants([128] if options.quick else [256, 512])]
    for length in lengths:
        count = per_kind if length <= 2048 else 1  # the longest take most of an hour's worth of prefill otherwise
        tasks = [make_task(kind, length, seed, rig.tokenizer) for kind in kinds for seed in range(count)]
        report(f"tasks of {length} tokens", quality(rig, tasks, variants), rows)
    texts = prose(rig.tokenizer, 512 if options.quick else 2048, 64, 2 if options.quick else 8)
    shares = [0.4, 0.7] if options.quick else [0.2, 0.4, 0.6, 0.8]
    scores = quality(rig, texts, [*variants, *core_variants(shares)])
    report(f"prose of {len(texts[0].prompt)} tokens", scores, rows)
    times = speed(rig, 2048, 48, 2 if options.quick else 5)
    finish("approximation", rows, {**ratios_of(times, rows), **_quality_ratios(scores)}, machine())


def measure_long(options: argparse.Namespace) -> None:
    """Minutes instead of the hour that all of it takes; the whole cache's prefill is shared by what only drops keys."""
    rig = Rig(options.model or default_model(), options.long + 200, options.threads)
    tasks = [
        make_task(kind, options.long, 0, rig.tokenizer) for kind in ("needle", "needles", "variables", "aggregation")
    ]
    variants = [Variant("whole"), *kv_variants([256, 512]), *prompt_variants([512])]
    rows: list[dict[str, object]] = []
    report(f"tasks of {options.long} tokens", quality(rig, tasks, variants), rows)
    finish("approximation", rows, {}, machine())


def report(title: str, found: dict[str, Scores], rows: list[dict[str, object]]) -> None:
    print(f"\n{title}")
    lines = []
    for name, s in found.items():
        figures = {"right": np.mean(s.right), "ppl": np.exp(np.mean(s.nats)), "kl": np.mean(s.kl),
                   "top1": np.mean(s.top1), "mb": np.mean(s.bytes) / 1e6}  # fmt: skip
        rows.append({"text": title, "variant": name, **{key: float(value) for key, value in figures.items()}})
        lines.append([name, *(f"{value:.3g}" for value in figures.values())])
    table(["variant", "right", "perplexity", "KL, nats", "top-1", "cache MB"], lines)


def ratios_of(times: dict[str, dict[str, list[float]]], rows: list[dict[str, object]]) -> dict[str, float]:
    print("\nspeed at 2048 tokens")
    middle = {name: {key: summary(values)["median"] for key, values in each.items()} for name, each in times.items()}
    keys = ("ttft_s", "act_s", "decode", "mb")
    lines = [[name, *(f"{each[key]:.3g}" for key in keys)] for name, each in middle.items()]
    table(["variant", "TTFT s", "acting s", "decode tokens/s", "cache MB"], lines)
    rows.extend({"speed": name, **m} for name, m in middle.items())
    whole = middle["whole"]
    return {
        "speckv_256_decode": middle["speckv 256"]["decode"] / whole["decode"],
        "speckv_256_bytes": whole["mb"] / middle["speckv 256"]["mb"],
        "specpc_512_ttft": whole["ttft_s"] / middle["specpc 512"]["ttft_s"],
        "specpc_512_decode": middle["specpc 512"]["decode"] / whole["decode"],
        "coreinfer_decode": middle["core 0.4"]["decode"] / whole["decode"],
    }


def _quality_ratios(scores: dict[str, Scores]) -> dict[str, float]:
    """How much nearer to the full cache speckv stays than a baseline: KL over KL, on prose, at the largest budget."""
    budget = max(int(name.split()[1]) for name in scores if name.startswith("speckv "))
    own = float(np.mean(scores[f"speckv {budget}"].kl))
    return {
        f"speckv_kl_vs_{m}": float(np.mean(scores[f"{m} {budget}"].kl)) / own for m in ("snapkv", "streaming", "random")
    }


if __name__ == "__main__":
    main()
