"""Two small networks that cover each other's mistakes, against one larger: accuracy for work (arXiv 2412.01039).

Claim measured: a cascade of two small convolutional networks (the second asked only where the first is not sure),
chosen for complementary mistakes, needs less work per picture than one larger network of the same accuracy; a memory of
past pictures saves the rest where pictures come again. Work = multiply-accumulates; joules follow them on one machine.

    python bench/cascade.py            eight small networks, three seeds (about six minutes on two cores)
    python bench/cascade.py --quick    five small networks, one seed

Pictures are distorted digits (shoal.proof.samples.glyphs); train, validation (pair, threshold), test are drawn apart.
Controls: the best single small network, a random pair, both always (ensemble), a larger network, an oracle that knows
who is right. The memory is exact (equal pixels), so it never gives one picture another's label; the paper's perceptual
hash did, and its figures are of pictures that all come twice, which is the last column here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import torch
from torch import nn

from common.report import finish, machine, table
from shoal.proof.samples.glyphs import SIDE, glyphs

SMALL = ((2, 3), (2, 5), (3, 3), (3, 5), (4, 3), (4, 5), (5, 3), (3, 7))
"""Channels of the first layer, and its kernel; the second has twice the channels."""
LARGE = (12, 5)


@dataclass(frozen=True, slots=True)
class Judged:
    """One network on one set: probabilities (n, 10), and the work of one picture."""

    name: str
    p: np.ndarray
    macs: int

    @property
    def guess(self) -> np.ndarray:
        return np.asarray(self.p.argmax(1))

    @property
    def sure(self) -> np.ndarray:
        return np.asarray(self.p.max(1))


@dataclass(frozen=True, slots=True)
class Way:
    """A way to classify: share right, multiply-accumulates a picture, share of pictures that asked a second network."""

    name: str
    accuracy: float
    macs: float
    asked: float = 0.0


def network(channels: int, kernel: int) -> nn.Sequential:
    side = (SIDE // 2) // 2
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * channels * side * side, 10),
    )  # fmt: skip


def work(channels: int, kernel: int) -> int:
    """Multiply-accumulates of one picture."""
    half, quarter = SIDE // 2, SIDE // 4
    first = SIDE * SIDE * channels * kernel * kernel
    return first + half * half * 2 * channels * channels * kernel * kernel + 2 * channels * quarter * quarter * 10


def trained(shape: tuple[int, int], pictures: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network(*shape)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def judged(name: str, model: nn.Module, shape: tuple[int, int], pictures: torch.Tensor) -> Judged:
    with torch.no_grad():
        return Judged(name, torch.softmax(model(pictures), 1).numpy().astype(np.float64), work(*shape))


def complementarity(a: Judged, b: Judged, labels: np.ndarray) -> float:
    """(right by either - right by both - | right by a - right by b |) / n, the paper's measure."""
    right = a.guess == labels, b.guess == labels
    either, both = (right[0] | right[1]).sum(), (right[0] & right[1]).sum()
    return float((either - both - abs(int(right[0].sum()) - int(right[1].sum()))) / len(labels))


def cascade(a: Judged, b: Judged, threshold: float, labels: np.ndarray, name: str) -> Way:
    """b where a is less sure than the threshold, and then whoever is surer."""
    asks = a.sure < threshold
    takes = asks & (b.sure > a.sure)
    guess = np.where(takes, b.guess, a.guess)
    return Way(name, float((guess == labels).mean()), a.macs + float(asks.mean()) * b.macs, float(asks.mean()))


def best_threshold(a: Judged, b: Judged, labels: np.ndarray) -> float:
    """The least threshold within 0.1 points of the best accuracy on validation: accuracy first, then work."""
    grid = np.linspace(0.0, 1.0, 201)
    ways = [cascade(a, b, threshold, labels, "").accuracy for threshold in grid]
    return float(grid[next(i for i, accuracy in enumerate(ways) if accuracy >= max(ways) - 0.001)])


def alone(one: Judged, labels: np.ndarray, name: str) -> Way:
    return Way(name, float((one.guess == labels).mean()), float(one.macs))


def ensemble(a: Judged, b: Judged, labels: np.ndarray) -> Way:
    guess = (a.p + b.p).argmax(1)
    return Way("both always", float((guess == labels).mean()), float(a.macs + b.macs), 1.0)


def oracle(a: Judged, b: Judged, labels: np.ndarray) -> Way:
    asks = a.guess != labels
    right = (a.guess == labels) | (b.guess == labels)
    return Way("oracle", float(right.mean()), a.macs + float(asks.mean()) * b.macs, float(asks.mean()))


def one_seed(seed: int, shapes: Sequence[tuple[int, int]], count: int, epochs: int) -> list[Way]:
    sets = [glyphs(size, seed * 10 + part, noise=0.5) for part, size in enumerate((count, count, 4000))]
    pictures = [torch.from_numpy(one.pictures) for one in sets]
    labels = torch.from_numpy(sets[0].labels)
    nets = [(shape, trained(shape, pictures[0], labels, seed + i, epochs)) for i, shape in enumerate((*shapes, LARGE))]
    valid, test = (
        [judged(f"{shape[0]} channels, kernel {shape[1]}", net, shape, pictures[part]) for shape, net in nets]
        for part in (1, 2)
    )
    small = range(len(shapes))
    known, truth = sets[1].labels, sets[2].labels
    i, j = max(combinations(small, 2), key=lambda pair: complementarity(valid[pair[0]], valid[pair[1]], known))
    first, second = sorted((i, j), key=lambda k: valid[k].macs)
    best = max(small, key=lambda k: float((valid[k].guess == known).mean()))
    rng = np.random.default_rng(seed)
    x, y = rng.choice(len(shapes), 2, replace=False)
    chosen = best_threshold(valid[first], valid[second], known)
    drawn = best_threshold(valid[x], valid[y], known)
    return [
        alone(test[best], truth, "best small"),
        cascade(test[first], test[second], chosen, truth, "cascade"),
        cascade(test[x], test[y], drawn, truth, "random pair"),
        ensemble(test[first], test[second], truth),
        oracle(test[first], test[second], truth),
        alone(test[-1], truth, "larger"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five small networks, one seed")
    quick = parser.parse_args().quick
    about = machine()
    shapes, seeds, count, epochs = (SMALL[:5], 1, 2000, 6) if quick else (SMALL, 3, 4000, 10)
    runs = [one_seed(seed, shapes, count, epochs) for seed in range(1, seeds + 1)]
    means = [mean(ways) for ways in zip(*runs, strict=True)]
    header = ("way", "right", "kMAC a picture", "asked the second", "kMAC, each seen twice")
    table(header, [(way.name, f"{way.accuracy:.2%}", f"{way.macs / 1e3:.0f}", f"{way.asked:.0%}",
                    f"{way.macs / 2e3:.0f}") for way in means])  # fmt: skip
    by_name = {way.name: way for way in means}
    mine, larger, best = by_name["cascade"], by_name["larger"], by_name["best small"]
    ratios = {
        "work_saved_against_larger": larger.macs / mine.macs,
        "points_against_larger": 100 * (mine.accuracy - larger.accuracy),
        "points_against_best_small": 100 * (mine.accuracy - best.accuracy),
        "points_against_random_pair": 100 * (mine.accuracy - by_name["random pair"].accuracy),
    }
    finish("cascade", [asdict(way) for way in means], ratios, {**about, "seeds": seeds})


def mean(ways: Sequence[Way]) -> Way:
    """Over seeds."""
    accuracy, macs, asked = np.mean([(way.accuracy, way.macs, way.asked) for way in ways], axis=0)
    return Way(ways[0].name, float(accuracy), float(macs), float(asked))


if __name__ == "__main__":
    main()
