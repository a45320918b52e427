"""Checked drafts leave the distribution as it is: a chi-squared test on a small vocabulary, and that it can fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest

from shoal.core.request import Sampling
from shoal.engine.sampler import Sampled, SamplerState
from shoal.engine.verify import verify

VOCAB, DRAWS, LENGTH = 6, 6000, 3
LOGITS = np.random.default_rng(11).standard_normal((VOCAB, VOCAB)).astype(np.float32) * 1.2
"""Of the next token, by the one before: a Markov chain stands for a model."""

Verify = Callable[[np.ndarray, Sequence[int], SamplerState], Iterator[Sampled]]


def answer(seed: int, verifier: Verify, fields: dict[str, float]) -> tuple[int, ...]:
    """LENGTH tokens after token 0, two drafted in every step: the likeliest, then one that differs by seed."""
    state = SamplerState(Sampling(seed=seed, **fields), choice=0, prompt=[0], vocab_size=VOCAB, eos_ids=frozenset())
    made: list[int] = []
    while len(made) < LENGTH:
        last = made[-1] if made else 0
        draft = [int(LOGITS[last].argmax()), seed % VOCAB]
        rows = LOGITS[[last, *draft]]
        made += [sampled.token_id for sampled in verifier(rows, draft, state)]
    return tuple(made[:LENGTH])


def chances(fields: dict[str, float]) -> dict[tuple[int, ...], float]:
    """Of each possible answer, by definition."""
    steps = LOGITS.astype(np.float64) / fields["temperature"]
    steps = np.exp(steps - steps.max(axis=1, keepdims=True))
    if (k := int(fields.get("top_k", 0))) > 0:
        steps *= steps >= np.sort(steps, axis=1)[:, [-k]]
    steps /= steps.sum(axis=1, keepdims=True)
    found = {}
    for index in np.ndindex(*(VOCAB,) * LENGTH):
        path = (0, *index)
        p = math.prod(steps[a, b] for a, b in pairwise(path))
        found[tuple(map(int, index))] = float(p)
    return found


def z_of_chi_squared(verifier: Verify, fields: dict[str, float]) -> float:
    """How many standard deviations the chi-squared statistic is above its mean (Wilson and Hilferty 1931)."""
    seen = Counter(answer(seed, verifier, fields) for seed in range(DRAWS))
    expected = chances(fields)
    assert all(expected[path] > 0 for path in seen), "an answer that cannot be"
    common = {path: p for path, p in expected.items() if p * DRAWS >= 5}
    rest = DRAWS * (1 - sum(common.values()))
    statistic = sum((seen[path] - p * DRAWS) ** 2 / (p * DRAWS) for path, p in common.items())
    statistic += (sum(n for path, n in seen.items() if path not in common) - rest) ** 2 / max(rest, 1)
    freedom = len(common)
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


@pytest.mark.parametrize("fields", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}], ids=["plain", "top_k"])
def test_sampled_answers_have_the_targets_distribution(fields: dict[str, float]) -> None:
    assert abs(z_of_chi_squared(verify, fields)) < 3.5


def generous(logits: np.ndarray, drafted: Sequence[int], state: SamplerState) -> Iterator[Sampled]:
    """Wrong on purpose: takes a draft that is merely likely, one time in ten."""
    for made, sampled in enumerate(verify(logits, drafted, state)):
        lucky = state.seed % 10 == 0 and made < len(drafted)
        yield Sampled(drafted[made]) if lucky else sampled
        if lucky and drafted[made] != sampled.token_id:
            return


def test_the_test_sees_a_generous_verifier() -> None:
    assert z_of_chi_squared(generous, {"temperature": 1.0}) > 5


def test_tokens_equal_those_sampled_one_by_one() -> None:
    def alone(logits: np.ndarray, drafted: Sequence[int], state: SamplerState) -> Iterator[Sampled]:
        yield from verify(logits[:1], (), state)

    for seed in range(200):
        assert answer(seed, verify, {"temperature": 1.0}) == answer(seed, alone, {"temperature": 1.0})


def test_nothing_is_sampled_behind_a_wrong_token_or_after_the_caller_stopped() -> None:
    state = SamplerState(Sampling(temperature=0.0), choice=0, prompt=[0], vocab_size=VOCAB, eos_ids=frozenset())
    best = LOGITS.argmax(axis=1)
    right = [int(best[0]), int(best[best[0]])]
    rows = LOGITS[[0, *right]]
    assert [s.token_id for s in verify(rows, [right[0], (right[1] + 1) % VOCAB], state)] == right
    assert state.num_tokens == 2
    next(iter(verify(rows, right, state)))
    assert state.num_tokens == 3
    assert len(list(verify(rows, right, state))) == 3
    assert len(list(verify(rows[:2], right, state))) == 2, "a draft of which a part was computed"
