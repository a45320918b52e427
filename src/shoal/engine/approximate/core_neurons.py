"""Sentence-wise core neurons (CoreInfer, arXiv 2410.18311, section 3). Pure numpy.

A token's core neurons are the largest of its positive activations; a sentence's are those that are core for most of its
tokens. Stability-guided, a prompt's own set serves its whole answer; similarity-guided, for prompts too short to tell,
the set of the nearest cluster of sentences seen before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOKEN_SHARE = 0.4
"""Of a token's positive activations that are its core: the paper's alpha."""

GROUP = 32
"""A slice is a whole number of these neurons: its down projection is quantised in blocks of 32 columns."""

MAX_ROWS = 128
"""Latest prompt tokens that are looked at; the set settles after about 200 (digest), half of it after far fewer."""


def count_core(activations: np.ndarray, token_share: float = TOKEN_SHARE) -> np.ndarray:
    """For how many tokens each neuron is core: int64 (layers, ffn), from float (layers, tokens, ffn).

    Every token's core is the same number of neurons, the share of the mean count of positive ones (the paper's code).
    """
    counts = np.empty((len(activations), activations.shape[2]), np.int64)
    for layer, rows in enumerate(activations):
        size = max(1, round(token_share * float((rows > 0).sum(axis=1).mean())))
        threshold = np.partition(rows, -size, axis=1)[:, -size]
        counts[layer] = ((rows >= threshold[:, None]) & (rows > 0)).sum(axis=0)
    return counts


def most_frequent(counts: np.ndarray, share: float) -> np.ndarray:
    """The neurons that are core most often: int32 (layers, n), increasing; n is `share` of all, a multiple of 32."""
    ffn = counts.shape[1]
    size = min(ffn // GROUP, max(1, round(share * ffn / GROUP))) * GROUP
    chosen = np.argsort(-counts, axis=1, kind="stable")[:, :size]
    return np.sort(chosen, axis=1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Clusters:
    """centres float (k, features), unit length; counts int (k, layers, ffn): how often each neuron was core there."""

    centres: np.ndarray
    counts: np.ndarray

    def nearest(self, feature: np.ndarray) -> np.ndarray:
        """Counts of the cluster whose centre has the largest cosine to `feature`."""
        found: np.ndarray = self.counts[int(np.argmax(self.centres @ feature))]
        return found


def cluster(features: np.ndarray, counts: np.ndarray, num_clusters: int, seed: int = 42) -> Clusters:
    """Spherical k-means over sentences, ten rounds: features float (sentences, n), counts (sentences, layers, ffn)."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    centres = unit[np.random.default_rng(seed).permutation(len(unit))[:num_clusters]]
    for _ in range(10):
        owner = np.argmax(unit @ centres.T, axis=1)
        means = np.stack([
            unit[owner == index].mean(axis=0) if (owner == index).any() else centre
            for index, centre in enumerate(centres)
        ])  # fmt: skip
        centres = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    owner = np.argmax(unit @ centres.T, axis=1)
    return Clusters(centres, np.stack([counts[owner == index].sum(axis=0) for index in range(len(centres))]))
