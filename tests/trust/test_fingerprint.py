"""Fingerprints: small, stable under noise, far apart for anything else, and useless with other tokens."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.core.receipt import SEGMENT_TOKENS
from shoal.trust.fingerprint import BYTES_PER_TOKEN, distance, distances, fingerprint, logit_errors, read_fingerprint

HIDDEN = 576
TOKENS = list(range(SEGMENT_TOKENS))


def rows(seed: int, count: int = SEGMENT_TOKENS) -> np.ndarray:
    """As a residual stream looks: a few coordinates are giants, the same ones everywhere."""
    found = np.random.default_rng(seed).standard_normal((count, HIDDEN)).astype(np.float32)
    found[:, 7] += 40.0
    found[:, 300] -= 25.0
    return found


def logits(seed: int, count: int = SEGMENT_TOKENS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-5, 30, count).astype(np.float32)


def test_it_is_small_and_reads_back() -> None:
    data = fingerprint(rows(0), logits(0), TOKENS)
    assert len(data) == 288 == SEGMENT_TOKENS * BYTES_PER_TOKEN
    sketch = read_fingerprint(data)
    assert sketch.projections.shape == (SEGMENT_TOKENS, 7)
    assert np.abs(sketch.logits - logits(0)).max() <= 1 / 128
    assert 0.7 < sketch.projections.std() < 1.3
    assert len(fingerprint(rows(0, 5), logits(0, 5), TOKENS[:5])) == 5 * BYTES_PER_TOKEN


def test_it_is_the_same_alone_and_scaled() -> None:
    whole = fingerprint(rows(1), logits(1), TOKENS)
    assert fingerprint(rows(1).copy(), logits(1), TOKENS) == whole
    assert distance(whole, fingerprint(3 * rows(1), logits(1), TOKENS)) < 0.01


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1, 0.3])
def test_distance_estimates_the_angle(noise: float) -> None:
    honest, rng = rows(2), np.random.default_rng(9)
    other = honest + noise * rng.standard_normal(honest.shape).astype(np.float32)
    a, b = fingerprint(honest, logits(2), TOKENS), fingerprint(other, logits(2), TOKENS)
    cut = [np.clip(x / np.abs(x).mean(axis=1, keepdims=True), -4, 4) for x in (honest, other)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in cut]
    true = float(np.sqrt(((unit[0] - unit[1]) ** 2).sum(axis=1).mean() / 2))
    assert distance(a, b) == pytest.approx(true, rel=0.2, abs=0.01)
    assert distances(a, b).shape == (SEGMENT_TOKENS,)


def test_unrelated_activations_are_far_although_their_giants_are_the_same() -> None:
    assert distance(fingerprint(rows(3), logits(3), TOKENS), fingerprint(rows(4), logits(3), TOKENS)) > 0.7


def test_right_activations_with_another_token_are_far_everywhere() -> None:
    other = [*TOKENS[:-1], 999]
    a, b = fingerprint(rows(5), logits(5), TOKENS), fingerprint(rows(5), logits(5), other)
    assert distance(a, b) > 0.7
    assert (distances(a, b) > 0.1).mean() > 0.95


def test_one_wrong_row_is_found_at_its_place() -> None:
    changed = rows(6)
    changed[11] = rows(7)[11]
    found = distances(fingerprint(rows(6), logits(6), TOKENS), fingerprint(changed, logits(6), TOKENS))
    assert int(found.argmax()) == 11
    assert np.delete(found, 11).max() == 0.0


def test_logits_bind_each_token() -> None:
    lied = logits(8)
    lied[3] += 2.0
    errors = logit_errors(fingerprint(rows(8), logits(8), TOKENS), fingerprint(rows(8), lied, TOKENS))
    assert (int(errors.argmax()), round(float(errors.max()), 1)) == (3, 2.0)
    huge = np.full(SEGMENT_TOKENS, 1e9, np.float32)
    assert read_fingerprint(fingerprint(rows(8), huge, TOKENS)).logits.max() < 513


def test_rows_of_zeros_and_of_giants_do_no_harm() -> None:
    for made in (np.zeros((2, HIDDEN), np.float32), np.full((2, HIDDEN), 1e30, np.float32)):
        assert np.isfinite(read_fingerprint(fingerprint(made, logits(0, 2), TOKENS[:2])).projections).all()


def test_what_is_none_is_refused() -> None:
    for count, tokens in ((0, []), (33, list(range(33))), (3, [1, 2])):
        with pytest.raises(ValueError, match="rows with a token"):
            fingerprint(np.zeros((count, 4), np.float32), np.zeros(count, np.float32), tokens)
    for data in (b"", b"x" * 8, b"x" * 9 * 33):
        with pytest.raises(ValueError, match="times 9 bytes"):
            read_fingerprint(data)
    with pytest.raises(ValueError, match="as many tokens"):
        distances(b"x" * 9, b"x" * 18)
