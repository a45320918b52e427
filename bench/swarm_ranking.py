"""When does ranking by peers find the best answer? Simulated judges of known accuracy, honest and not.

Claims measured: winner accuracy (is the winner the best of n answers; chance 1/n) and Kendall's tau against the
accuracy of judges, comparisons, n, and the share of adversaries of five kinds, with and without reputation;
whitewashing over many rounds; false alarms and hits of the collusion flag. Judges have a position bias of 0.1, ties
0.05, and share a fifth of their errors (`common.judges`). The fit, the schedule, exams and weights are Shoal's own.

    python bench/swarm_ranking.py [--quick] [--figures FOLDER]       80 s of one core; 30 with --quick
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.judges import World, outcome, whitewashing
from common.report import finish, machine, table
from common.svg import Chart, Line, save
from shoal.think.pairs import Pair, all_pairs
from shoal.trust.reputation.collusion import flags

ACCURACIES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
SHARES = (0.0, 0.15, 0.3, 0.45)
ATTACKS = ("random", "inverting", "colluding", "self", "sybil")
N, AT = 7, 0.8


def robin(count: int, seed: int, judge: int) -> tuple[Pair, ...]:
    return all_pairs(count)


def some(pairs: int) -> Any:
    """A schedule of so many random ordered pairs."""

    def draw(count: int, seed: int, judge: int) -> tuple[Pair, ...]:
        everything = all_pairs(count)
        chosen = np.random.default_rng(seed).choice(len(everything), min(pairs, len(everything)), replace=False)
        return tuple(everything[i] for i in chosen)

    return draw


def by_accuracy(trials: int) -> tuple[list[Line], list[Line]]:
    kinds = {
        "swarm, 7 judges": World(),
        "swarm, all pairs": World(pairs=robin),
        "one judge, all pairs": World(judges=1, pairs=robin),
        "errors half shared": World(together=0.5),
        "no shared errors": World(together=0.0),
    }
    found = {
        name: [(p, outcome(replace(world, p=p, has_reputation=False), trials, 1)) for p in ACCURACIES]
        for name, world in kinds.items()
    }
    best = [Line(name, tuple((p, one.is_best) for p, one in points)) for name, points in found.items()]
    taus = [Line(name, tuple((p, one.tau) for p, one in points)) for name, points in found.items()]
    return best, taus


def by_pairs(trials: int) -> list[Line]:
    counts = (3, 6, 12, 18, 27, 42)
    return [
        Line(
            f"p = {p:g}",
            tuple(
                (count, outcome(World(p=p, pairs=some(count), has_reputation=False), trials, 2).tau) for count in counts
            ),
        )
        for p in (0.6, 0.7, 0.8, 0.9)
    ]


def by_members(trials: int) -> list[Line]:
    return [
        Line(
            f"p = {p:g}",
            tuple((n, outcome(World(n=n, p=p, has_reputation=False), trials, 3).is_best) for n in (3, 5, 7, 11, 15)),
        )
        for p in (0.6, 0.7, 0.8, 0.9)
    ]


def by_attack(trials: int, has_reputation: bool, own: bool, n: int = 20) -> list[Line]:
    world = World(n=n, p=AT, has_reputation=has_reputation, own=own)
    return [
        Line(
            attack,
            tuple((share, outcome(replace(world, attack=attack, share=share), trials, 4).is_best) for share in SHARES),
        )
        for attack in ATTACKS
    ]


def collusion(trials: int) -> dict[str, float]:
    """Of tables of seven judges on 120 comparisons: honest ones with a flag, colluding pairs flagged (p = 0.8)."""
    rng = np.random.default_rng(5)
    alarms = hits = 0
    for _ in range(trials):
        shared = rng.random(120) < AT
        honest = {
            f"h{j}": {str(i): bool(shared[i] if rng.random() < 0.2 else rng.random() < AT) for i in range(120)}
            for j in range(5)
        }
        led = {str(i): bool(rng.random() < 0.5) for i in range(120)}
        alarms += bool(flags(honest))
        hits += any({flag.a, flag.b} == {"x", "y"} for flag in flags(honest | {"x": led, "y": dict(led)}))
    return {"false_alarms": alarms / trials, "hits": hits / trials}


def show(title: str, lines: list[Line]) -> None:
    print(f"\n{title}")
    table(
        ("", *(f"{x:g}" for x, _ in lines[0].points)),
        [[line.name, *(f"{y:.2f}" for _, y in line.points)] for line in lines],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    trials = 60 if arguments.quick else 160
    best, taus = by_accuracy(trials)
    charts = {
        "swarm-accuracy": Chart(
            "Is the winner the best of 7 answers?", "accuracy of a verdict", "share of ballots", tuple(best)
        ),
        "swarm-tau": Chart(
            "Ranking against the truth, 7 answers", "accuracy of a verdict", "Kendall's tau", tuple(taus)
        ),
        "swarm-pairs": Chart(
            "More comparisons a judge, 7 answers", "comparisons a judge", "Kendall's tau", tuple(by_pairs(trials))
        ),
        "swarm-members": Chart(
            "More members that answer and judge", "members", "share of ballots", tuple(by_members(trials))
        ),
        "swarm-attacks": Chart(
            "Adversaries among 20, with reputation",
            "share of adversaries",
            "winner is the best",
            tuple(by_attack(trials, True, False)),
        ),
        "swarm-attacks-unweighted": Chart(
            "The same, without reputation",
            "share of adversaries",
            "winner is the best",
            tuple(by_attack(trials, False, True)),
        ),
    }
    for chart in charts.values():
        show(f"{chart.title} ({chart.y} by {chart.x})", list(chart.lines))
    own = by_attack(trials, True, True)[3]
    print(f"\nself-promotion where votes on one's own answer count: {', '.join(f'{y:.2f}' for _, y in own.points)}")
    washed = {share: whitewashing(World(n=N * 2, p=AT, share=share), 4 * trials, 6) for share in SHARES[1:]}
    print("\nwhitewashing (winner is the best: with reputation, without; names used up by each adversary)")
    table(
        ("share", "with", "without", "names"),
        [
            (f"{share:g}", f"{one.with_reputation:.2f}", f"{one.without:.2f}", f"{one.names:.1f}")
            for share, one in washed.items()
        ],
    )
    colluded = collusion(trials)
    print(
        f"\ncollusion flag: {colluded['false_alarms']:.3f} of honest tables, {colluded['hits']:.3f} of colluding pairs"
    )
    if arguments.figures:
        for name, chart in charts.items():
            save(chart, arguments.figures / f"{name}.svg")
    rows = [
        {"chart": name, "line": line.name, "points": line.points}
        for name, chart in charts.items()
        for line in chart.lines
    ]
    at = ACCURACIES.index(AT)
    ratios = {"swarm_over_one_judge_at_0.8": best[0].points[at][1] / max(0.01, best[2].points[at][1]),
              "reputation_over_none_sybil_0.3": charts["swarm-attacks"].lines[4].points[2][1]
              / max(0.01, charts["swarm-attacks-unweighted"].lines[4].points[2][1])}  # fmt: skip
    finish("swarm_ranking", [*rows, colluded], ratios, machine())


if __name__ == "__main__":
    main()
