"""Activations in nine bytes a token: enough to tell whether the same model computed the same thing, in spirit of
TOPLOC (arXiv 2501.16007), by random projections (Johnson and Lindenstrauss 1984) instead of largest elements.

    rows    (n <= 32, hidden): residual stream after the last layer, at the positions that chose n output tokens
    z       each row over its mean magnitude, elements cut at +-CLIP: a few giant ones would hide all others
    sketch  z / |z| times PROJECTIONS vectors of +-1, each sum one int8: 1/SCALE units, standard deviation about 1
    logit   the raw logit of the token that was chosen, int16: 1/LOGIT_SCALE nats; binds tokens to activations

    bytes   [ n x PROJECTIONS int8 ][ n x int16 little-endian ]     at most 288 for 32 tokens

The vectors depend on the segment's own tokens, known only once these are chosen, so nobody can train a
cheaper model to meet fixed ones. Distances are linear in the error: unlike lists of largest elements they do not jump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.receipt import SEGMENT_TOKENS
from shoal.crypto.hashes import hasher

PROJECTIONS = 7
CLIP = 4.0
SCALE = 32.0
LOGIT_SCALE = 64.0
BYTES_PER_TOKEN = PROJECTIONS + 2
_VECTORS = "shoal fingerprint vectors v1"


def fingerprint(rows: np.ndarray, logits: np.ndarray, tokens: Sequence[int]) -> bytes:
    """Of one segment: float rows (n, hidden), the raw logits (n,) of the tokens chosen there, and those tokens."""
    count, hidden = rows.shape
    if not 0 < count == len(tokens) == len(logits) <= SEGMENT_TOKENS:
        raise ValueError(f"expected 1 to {SEGMENT_TOKENS} rows with a token and a logit each, found {count}")
    sketch = np.clip(np.rint(project(rows, _vectors(tokens, hidden)) * SCALE), -127, 127).astype(np.int8)
    chosen = np.clip(np.rint(np.asarray(logits, np.float64) * LOGIT_SCALE), -(2**15), 2**15 - 1).astype("<i2")
    return sketch.tobytes() + chosen.tobytes()


def project(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(n, PROJECTIONS) in units of about one standard deviation."""
    rows = np.asarray(rows, np.float32)
    z = np.clip(rows / (np.abs(rows).mean(axis=1, keepdims=True) + 1e-12), -CLIP, CLIP)
    z /= np.linalg.norm(z, axis=1, keepdims=True) + 1e-12
    return np.asarray(z @ vectors)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A fingerprint read back: projections (n, PROJECTIONS) and logits (n,), float32."""

    projections: np.ndarray
    logits: np.ndarray


def read_fingerprint(data: bytes) -> Sketch:
    """ValueError for bytes that are none."""
    count, rest = divmod(len(data), BYTES_PER_TOKEN)
    if rest or not 0 < count <= SEGMENT_TOKENS:
        raise ValueError(f"expected 1 to {SEGMENT_TOKENS} times {BYTES_PER_TOKEN} bytes, found {len(data)}")
    split = count * PROJECTIONS
    sketch = np.frombuffer(data[:split], np.int8).reshape(count, PROJECTIONS)
    return Sketch(sketch / np.float32(SCALE), np.frombuffer(data[split:], "<i2") / np.float32(LOGIT_SCALE))


def distances(claimed: bytes, computed: bytes) -> np.ndarray:
    """(n,) distance at each position between the directions of two activations: 0 the same, about 1 unrelated.

    An estimate of |a/|a| - b/|b|| / sqrt(2) from PROJECTIONS samples. ValueError for fingerprints of unequal length.
    """
    a, b = read_fingerprint(claimed).projections, read_fingerprint(computed).projections
    if len(a) != len(b):
        raise ValueError(f"expected fingerprints of as many tokens, found {len(a)} and {len(b)}")
    return np.asarray(np.sqrt(((a - b) ** 2).mean(axis=1) / 2))


def distance(claimed: bytes, computed: bytes) -> float:
    """Root mean square of `distances`."""
    return float(np.sqrt((distances(claimed, computed) ** 2).mean()))


def logit_errors(claimed: bytes, computed: bytes) -> np.ndarray:
    """(n,) absolute difference of the chosen tokens' raw logits, nats."""
    return np.asarray(np.abs(read_fingerprint(claimed).logits - read_fingerprint(computed).logits))


def _vectors(tokens: Sequence[int], hidden: int) -> np.ndarray:
    """(hidden, PROJECTIONS) of +-1, from the segment's tokens."""
    source = hasher(_VECTORS)
    source.update(np.asarray(tokens, "<i8").tobytes())
    bits = np.unpackbits(np.frombuffer(source.digest(length=-(-hidden * PROJECTIONS // 8)), np.uint8))
    return bits[: hidden * PROJECTIONS].reshape(hidden, PROJECTIONS).astype(np.float32) * 2 - 1
