"""Attacks on hidden states: what a peer that computes the middle of a model can read of the tokens behind them.

All of them are honest-but-curious: the peer has the model's public weights, the states it is sent, and text of its own.

nearest   the token whose embedding has the smallest angle to the state, both standardised per dimension.
ridge     a linear map from three neighbouring states to embeddings, fitted on other text, then the nearest embedding.
check     guess and check: candidates (the ridge's and the language model's own) are run through the first layers behind
          what was recovered so far; the right one gives the very state that was sent.
rotation  a secret rotation of the states is undone from the rotated weights that the peer must be given to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from shoal.kernels.quant import dequantize
from shoal.models.batch import Batch
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import Part
from shoal.models.native_runner import NativeRunner
from shoal.models.part import part_of
from shoal.models.tensors import Tensor

BLOCK = 16
LENGTH = 128
"""Tokens of one sequence of text."""
CROWD = 512
"""Candidates run at once; the likeliest 32 go first."""
SUGGESTED = 4096
"""Tokens the ridge suggests for a position, and the language model again."""
EXACT = 1e-3
"""Relative distance below which a guess is right beyond doubt: equal tokens give equal bits."""


def matrix(tensor: Tensor) -> np.ndarray:
    """float32 (rows, columns)."""
    return dequantize(tensor.storage, tensor.data, tensor.shape[-1]).reshape(tensor.shape)


def sequences_batch(sequences: Sequence[Sequence[int]]) -> Batch:
    """Whole sequences, each in blocks of its own, every row an output."""
    counts = np.array([len(item) for item in sequences], np.int32)
    per = -(-max(counts) // BLOCK)
    tables = np.arange(len(sequences) * per, dtype=np.int32).reshape(len(sequences), per)
    positions = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    owner = np.repeat(np.arange(len(sequences)), counts)
    return Batch(
        tokens=np.concatenate([np.array(item, np.int32) for item in sequences]),
        positions=positions,
        slots=(tables[owner, positions // BLOCK] * BLOCK + positions % BLOCK).astype(np.int32),
        query_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        context_lens=counts,
        block_tables=tables,
        adapters=np.full(len(sequences), -1, np.int32),
        output_rows=np.arange(len(positions), dtype=np.int32),
    )


class States:
    """The residual stream after each of `depths`, by parts of the network one behind the other."""

    def __init__(self, checkpoint: Checkpoint, depths: Sequence[int], threads: int) -> None:
        bounds = [0, *depths]
        parts = [Part(a, b, has_embedding=a == 0) for a, b in pairwise(bounds)]
        options = {"num_blocks": 8 * (LENGTH // BLOCK), "block_size": BLOCK, "threads": threads}
        self._runners = [NativeRunner(part_of(checkpoint, part), **options) for part in parts]
        self.depths = tuple(depths)

    def of(self, sequences: Sequence[Sequence[int]]) -> dict[int, list[np.ndarray]]:
        """Depth -> one float32 (tokens, hidden) for each sequence."""
        found: dict[int, list[np.ndarray]] = {depth: [] for depth in self.depths}
        for first in range(0, len(sequences), 4):
            batch = sequences_batch(sequences[first : first + 4])
            for depth, runner in zip(self.depths, self._runners, strict=True):
                batch.inputs = runner.run(batch).copy()
                found[depth] += np.split(batch.inputs, batch.query_start[1:-1])
        return found

    def close(self) -> None:
        for runner in self._runners:
            runner.close()


@dataclass
class Embeddings:
    """Token embeddings, standardised, as directions: the nearest has the largest product."""

    values: np.ndarray
    units: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        centred = (self.values - self.values.mean(axis=0)) / self.values.std(axis=0)
        self.units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)

    def ranked(self, rows: np.ndarray, count: int) -> np.ndarray:
        """int (rows, count): tokens by angle, nearest first. `rows` are standardised, of any length."""
        scores = rows @ self.units.T
        top = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1)
        return np.take_along_axis(top, order, 1)


def nearest(states: np.ndarray, others: np.ndarray, embeddings: Embeddings) -> np.ndarray:
    """int (rows,): the guess for each state; `others` of other text say what is usual."""
    return embeddings.ranked((states - others.mean(axis=0)) / (others.std(axis=0) + 1e-6), 1)[:, 0]


@dataclass(frozen=True)
class Ridge:
    """(features - mean) / scale @ weights: embeddings without their mean."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def __call__(self, states: np.ndarray) -> np.ndarray:
        return (features(states) - self.mean) / self.scale @ self.weights


def features(states: np.ndarray) -> np.ndarray:
    """Each state with its neighbours: the next one has attended to the token, too."""
    nothing = np.zeros_like(states[:1])
    return np.concatenate([states, np.concatenate([states[1:], nothing]), np.concatenate([nothing, states[:-1]])], 1)


def fit_ridge(states: Sequence[np.ndarray], tokens: Sequence[Sequence[int]], embeddings: Embeddings) -> Ridge:
    """Of several strengths the one that is best on the last tenth."""
    x = np.concatenate([features(item) for item in states])
    y = embeddings.units[np.concatenate([np.array(item) for item in tokens])]
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / scale
    kept = int(0.9 * len(x))
    gram, cross = x[:kept].T @ x[:kept], x[:kept].T @ y[:kept]
    fits = [np.linalg.solve(gram + strength * kept * np.eye(len(gram), dtype=np.float32), cross)
            for strength in (1e-4, 1e-3, 1e-2, 1e-1)]  # fmt: skip
    losses = [float(np.square(x[kept:] @ weights - y[kept:]).mean()) for weights in fits]
    return Ridge(mean, scale, fits[int(np.argmin(losses))])


class Checker:
    """Guess and check at one depth: a machine of the attacker's own with the first layers, and the whole model."""

    def __init__(self, checkpoint: Checkpoint, depth: int, threads: int, most: int) -> None:
        """`most` candidates are tried for a position."""
        self._most = most
        front = part_of(checkpoint, Part(0, depth, has_embedding=True))
        self._own = 16
        self._front = NativeRunner(front, num_blocks=self._own + CROWD, block_size=BLOCK, threads=threads)
        self._logits = np.zeros(0, np.float32)
        self._whole = NativeRunner(checkpoint, num_blocks=self._own, block_size=BLOCK, threads=threads)

    def recover(self, known: Sequence[int], states: np.ndarray, suggested: np.ndarray) -> tuple[list[int], int]:
        """The tokens behind one sequence's states, of which the first are known, and how many guesses were run.

        suggested  (rows, tokens), likeliest first.
        """
        found: list[int] = []
        tries = 0
        for position, state in enumerate(states):
            given = list(known[position : position + 1])
            candidates = given or self._candidates(found, suggested[position])
            best, tried = self._guess(position, state, candidates)
            found.append(best)
            tries += tried
        return found, tries

    def _candidates(self, known: list[int], suggested: np.ndarray) -> list[int]:
        """The ridge's and the model's own guesses by turns."""
        likely = np.argsort(-self._logits)[: len(suggested)]
        return list(dict.fromkeys(np.stack([suggested, likely], 1).reshape(-1).tolist()))

    def _guess(self, position: int, state: np.ndarray, candidates: list[int]) -> tuple[int, int]:
        block, done, best, closest = position // BLOCK, 0, candidates[0], np.inf
        while closest > EXACT and done < min(self._most, len(candidates)):
            batch = candidates[done : done + CROWD] if done else candidates[:32]
            distance = self._distances(position, state, batch)
            if distance.min() < closest:
                closest, best = float(distance.min()), batch[int(distance.argmin())]
            done += len(batch)
        here = _rows([best], position, [list(range(block + 1))])
        self._front.run(here)
        self._logits = self._whole.run(here)[0].copy()
        return best, done

    def _distances(self, position: int, state: np.ndarray, tokens: list[int]) -> np.ndarray:
        block = position // BLOCK
        own = [self._own + index for index in range(len(tokens))]
        self._front.copy_blocks([(block, copy) for copy in own])
        out = self._front.run(_rows(tokens, position, [[*range(block), copy] for copy in own]))
        return np.linalg.norm(out - state, axis=1) / np.linalg.norm(state)

    def close(self) -> None:
        self._front.close()
        self._whole.close()


def _rows(tokens: Sequence[int], position: int, tables: Sequence[Sequence[int]]) -> Batch:
    """One row of each of several sequences, all at `position`."""
    count, table = len(tokens), np.array(tables, np.int32)
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.full(count, position, np.int32),
        slots=table[:, position // BLOCK] * BLOCK + position % BLOCK,
        query_start=np.arange(count + 1, dtype=np.int32),
        context_lens=np.full(count, position + 1, np.int32),
        block_tables=table,
        adapters=np.full(count, -1, np.int32),
        output_rows=np.arange(count, dtype=np.int32),
    )


def undo_rotation(known: np.ndarray, rotated: np.ndarray) -> np.ndarray:
    """The orthogonal Q with known @ Q closest to rotated (Procrustes): both (rows, hidden)."""
    left, _, right = np.linalg.svd(known.T @ rotated)
    return np.asarray(left @ right)


def first_matrices(checkpoint: Checkpoint, layer: int) -> np.ndarray:
    """What reads the stream in a layer, norms folded in: (rows, hidden)."""
    weights = checkpoint.weights
    pairs = (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up")))
    found = []
    for norm, names in pairs:
        scale = matrix(weights[f"blk.{layer}.{norm}.weight"]).reshape(1, -1)
        found += [matrix(weights[f"blk.{layer}.{name}.weight"]) * scale for name in names]
    return np.concatenate(found)
