"""Does a learned selector (MetaInf) choose acceleration methods better than one fixed choice? Regret, not accuracy.

Claim measured: over a history of real speeds (ten workloads x hardware profiles x methods of Shoal's engine), the
selector of `shoal.plan` loses less speed against the oracle than the best single method, always everything, random
choice and the nearest neighbour, on workloads and on hardware profiles left out of its training.

    python bench/chooser.py                read bench/data/chooser.json and report
    python bench/chooser.py --measure      measure that table again on this machine first
    python bench/chooser.py --quick        a small table measured now, not kept

Regret of a choice: the share of the best method's speed that it loses. Ratios above 1 favour the selector.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.peer import Peer
from common.report import commit, finish, machine, summary, table
from engine import default_model
from shoal.plan.features import of_hardware
from shoal.plan.selector import Selector, SelectorOptions, best_single
from shoal.plan.table import Row, Table, tabulate
from shoal.plan.workload import KINDS

DATA = Path(__file__).parent / "data" / "chooser.json"
ALL = "batching+prefix+suffix"
METHODS = ("none", "batching", "prefix", "suffix", "batching+prefix", "batching+suffix", "prefix+suffix", ALL,
           "batching+lookup+prefix")  # fmt: skip
PROFILES = (("avx512vnni", 1, 8), ("avx512vnni", 2, 8), ("avx512vnni", 2, 16), ("avx2", 1, 8), ("avx2", 2, 8),
            ("scalar", 2, 8))  # fmt: skip
WORKLOADS = tuple(itertools.product(KINDS, (1, 2)))

Record = dict[str, Any]
Keep = Callable[[list[Record]], None]
Choose = Callable[[Table, dict[str, float]], str]


# ---- measuring ------------------------------------------------------------------------------------------


def measure(
    model: Path, profiles: Sequence[tuple[str, int, int]], kinds: Sequence[Any], rounds: int, keep: Keep
) -> list[Record]:
    """`keep` gets all records so far after each profile, so that a stopped run is not lost."""
    records: list[Record] = []
    for isa, threads, bits in profiles:
        with ExitStack() as stack:
            peer = stack.enter_context(
                Peer(f"chooser-{isa}-{threads}-{bits}", Path(sys.executable), "method_worker.py")
            )
            isas = peer.ask("load", path=str(model), threads=threads, isa=isa, activation_bits=bits)["isas"]
            if isa not in isas:
                print(f"{isa}: this processor has only {', '.join(isas)}", file=sys.stderr)
                continue
            features = peer.ask("features", kinds=kinds)["features"]
            speeds = rounds_of(peer, kinds, rounds)
        hardware = of_hardware(threads, isa, bits)
        records += [
            {"workload": kind, "size": size, "profile": f"{isa}-{threads}-{bits}", "method": method,
             "features": {**features[index], **hardware}, "speeds": [round(run[index], 2) for run in speeds[method]]}
            for index, (kind, size) in enumerate(kinds) for method in METHODS
        ]  # fmt: skip
        keep(records)
    return records


def rounds_of(peer: Peer, kinds: Sequence[Any], rounds: int) -> dict[str, list[list[float]]]:
    """All methods in turn, so that a slow minute is shared by all. Every run is the same text in a new engine, so runs
    differ by what else the machine did."""
    speeds: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for number in range(rounds):
        order = METHODS if number % 2 == 0 else METHODS[::-1]
        for method in order:
            speeds[method].append(peer.ask("measure", method=method, kinds=kinds, seed=0)["speeds"])
        print(f"{peer.name}: round {number + 1} of {rounds}", file=sys.stderr)
    return speeds


# ---- choosing -------------------------------------------------------------------------------------------


def selected(options: SelectorOptions) -> Choose:
    return lambda known, task: Selector(known, options).choose(task).method


def nearest(known: Table, task: dict[str, float]) -> str:
    """The best method of the one most similar known task."""
    scale = np.where(known.features.std(axis=0) > 0, known.features.std(axis=0), 1.0)
    distances = np.linalg.norm((known.features - known.vector(task)) / scale, axis=1)
    return known.methods[int(np.argmax(known.speeds[int(np.argmin(distances))]))]


POLICIES: dict[str, Choose] = {
    "metainf": selected(SelectorOptions(default=ALL)),
    "metainf_bold": selected(SelectorOptions(caution=0.0, default=ALL)),
    "metainf_ridge": selected(SelectorOptions("ridge", default=ALL)),
    "metainf_neighbours": selected(SelectorOptions("neighbours", default=ALL)),
    "metainf_single": selected(SelectorOptions()),
    "nearest": nearest,
    "best_single": lambda known, task: best_single(known),
    "always_all": lambda known, task: ALL,
}


@dataclass(frozen=True, slots=True)
class Tasks:
    """A table's tasks in order: features, speeds (tasks, methods), and the label of each in every grouping."""

    table: Table
    features: list[dict[str, float]]
    groups: dict[str, list[str]]


def tasks_of(records: Sequence[Record]) -> Tasks:
    """Of several runs the fastest counts: whatever else a machine does only adds time."""
    rows = [Row(item["features"], item["method"], max(item["speeds"])) for item in records]
    built = tabulate(rows)
    first = [item for item in records if item["method"] == METHODS[0]]
    groups = {
        "workload": [f"{item['workload']}-{item['size']}" for item in first],
        "workload_kind": [item["workload"] for item in first],
        "hardware_profile": [item["profile"] for item in first],
    }
    return Tasks(built, [item["features"] for item in first], groups)


def regrets(tasks: Tasks, labels: Sequence[str], choose: Choose) -> np.ndarray:
    """Of each task, chosen for by what is known without its group."""
    out, names = np.zeros(len(labels)), np.array(labels)
    for index, label in enumerate(labels):
        known = tasks.table.without(names == label)
        method = choose(known, tasks.features[index])
        speeds = tasks.table.speeds[index]
        out[index] = 1 - speeds[tasks.table.methods.index(method)] / speeds.max()
    return out


def random_regrets(tasks: Tasks) -> np.ndarray:
    speeds = tasks.table.speeds
    return np.asarray(1 - speeds.mean(axis=1) / speeds.max(axis=1))


def noise_regret(records: Sequence[Record]) -> float:
    """What an oracle loses that saw the first run only and is judged by the best of the others."""
    lost = []
    for _, group in itertools.groupby(records, key=lambda item: (item["workload"], item["size"], item["profile"])):
        items = list(group)
        later = [max(item["speeds"][1:]) for item in items]
        chosen = int(np.argmax([item["speeds"][0] for item in items]))
        lost.append(1 - later[chosen] / max(later))
    return float(np.mean(lost))


def in_words(tasks: Tasks, dims: int = 8) -> Tasks:
    """The same tasks described in words, each a random vector, their sum reduced by SVD: what MetaInf's embeddings by a
    language model come to without one."""
    texts = [
        " ".join(f"{name} {round(value)}" for name, value in features.items()) + f" {kind}"
        for features, kind in zip(tasks.features, tasks.groups["workload_kind"], strict=True)
    ]
    rng = np.random.default_rng(0)
    words = {word: rng.normal(size=64) for word in sorted({word for text in texts for word in pairs(text)})}
    sums = np.array([sum((words[word] for word in pairs(text)), np.zeros(64)) for text in texts])
    u, s, _ = np.linalg.svd(sums - sums.mean(axis=0), full_matrices=False)
    reduced = (u * s)[:, :dims]
    names = tuple(f"t{index}" for index in range(reduced.shape[1]))
    built = Table(names, tasks.table.methods, reduced, tasks.table.speeds)
    return Tasks(built, [dict(zip(names, map(float, row), strict=True)) for row in reduced], tasks.groups)


def pairs(text: str) -> list[str]:
    """A number means something only beside its word."""
    words = text.split()
    return [f"{a} {b}" for a, b in itertools.pairwise(words)]


# ---- reporting ------------------------------------------------------------------------------------------


def report(records: Sequence[Record]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    tasks = tasks_of(records)
    worded = in_words(tasks)
    rows, ratios = [], {}
    for group, labels in tasks.groups.items():
        if len(set(labels)) < 2:
            continue
        found = {name: regrets(tasks, labels, choose) for name, choose in POLICIES.items()}
        found["metainf_text"] = regrets(worded, labels, POLICIES["metainf"])
        found["random"] = random_regrets(tasks)
        rows += [
            {"left_out": group, "policy": name, "regret": round(float(lost.mean()), 4),
             "worst": round(float(lost.max()), 4)}
            for name, lost in found.items()
        ]  # fmt: skip
        ours = max(float(found["metainf"].mean()), 1e-3)
        for name in ("best_single", "always_all", "random", "nearest"):
            ratios[f"metainf_regret_vs_{name}_{group}"] = max(float(found[name].mean()), 1e-3) / ours
    ratios["metainf_regret_vs_best_single"] = ratios.get("metainf_regret_vs_best_single_workload", 1.0)
    return rows, ratios


def print_spread(records: Sequence[Record]) -> None:
    """Which method is best where, and how much there is to win at all."""
    tasks = tasks_of(records)
    speeds, methods = tasks.table.speeds, tasks.table.methods
    single = methods.index(best_single(tasks.table))
    shares = (speeds / speeds.max(axis=1, keepdims=True)).mean(axis=0)
    wins = [int((speeds.argmax(axis=1) == index).sum()) for index in range(len(methods))]
    cells = [(name, str(won), f"{share:.3f}") for name, won, share in zip(methods, wins, shares, strict=True)]
    table(("method", "is best in", "mean share of the best"), cells)
    spread = [(max(item["speeds"]) - min(item["speeds"])) / float(np.median(item["speeds"])) for item in records]
    print(
        f"\n{len(speeds)} tasks; best single method: {methods[single]}; runs of one cell differ by "
        f"{summary(spread)['median']:.1%} (median); an oracle that saw one run loses {noise_regret(records):.2%}\n"
    )


def write(about: dict[str, Any], records: list[Record]) -> None:
    """One record a line, so that a new measurement is a readable difference."""
    DATA.parent.mkdir(exist_ok=True)
    text = json.dumps({**about, "records": records}, separators=(",", ":"))
    DATA.write_text(text.replace('{"workload"', '\n{"workload"') + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the kept table again (half an hour)")
    parser.add_argument("--quick", action="store_true", help="a small fresh table: two profiles, two rounds")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    about = machine()
    if options.quick:
        kinds = [item for item in WORKLOADS if item[1] == 1]
        records = measure(options.model or default_model(), PROFILES[:2], kinds, 2, lambda records: None)
    elif options.measure:
        model = options.model or default_model()
        kept = {"commit": commit(), "machine": about, "rounds": options.rounds}
        records = measure(model, PROFILES, WORKLOADS, options.rounds, lambda records: write(kept, records))
    else:
        kept = json.loads(DATA.read_text())
        records, about = kept["records"], {**kept["machine"], "measured_at": kept["commit"]}
    print_spread(records)
    rows, ratios = report(records)
    table(("left out, policy", "regret", "worst"), [
        (f"{row['left_out']}: {row['policy']}", f"{row['regret']:.2%}", f"{row['worst']:.1%}") for row in rows
    ])  # fmt: skip
    print()
    table(("regret of others / of the selector", "times"), [(name, f"{value:.2f}") for name, value in ratios.items()])
    finish("chooser", rows, ratios, about)


if __name__ == "__main__":
    main()
