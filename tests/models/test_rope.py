"""Rope angles against transformers' own functions, and what rotation must keep true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import transformers as hf
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from shoal.core.errors import BadConfig
from shoal.models.config import Rope
from shoal.models.rope import rope_frequencies, rope_tables

BASE = Rope(theta=50_000.0, dims=64, factor=4.0, original_context=512)

THEIRS = [
    (replace(BASE, scaling="linear"), {"rope_type": "linear", "factor": 4.0}),
    (
        replace(BASE, scaling="llama3", low_freq_factor=1.0, high_freq_factor=4.0),
        {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 512},
    ),
    (
        replace(BASE, scaling="yarn"),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    ),
    (
        replace(BASE, scaling="yarn", beta_fast=16.0, beta_slow=2.0, attention_factor=1.25),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 16.0,
         "beta_slow": 2.0, "attention_factor": 1.25},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rope", "parameters"), THEIRS)
def test_frequencies_equal_transformers(rope: Rope, parameters: dict[str, Any]) -> None:
    config = hf.LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=2048,
        rope_parameters={"rope_theta": 50_000.0, **parameters},
    )  # fmt: skip
    expected, expected_scale = ROPE_INIT_FUNCTIONS[rope.scaling](config, None)
    found, scale = rope_frequencies(rope, 64)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6)
    assert scale == pytest.approx(expected_scale)
    plain, _ = rope_frequencies(replace(rope, scaling="none"), 64)
    assert np.abs(found / plain - 1).max() > 0.5  # the scaling did something


def test_explicit_factors_divide_each_pair() -> None:
    """llama.cpp writes Llama 3's scaling as divisors; both ways of saying it agree."""
    scaled, _ = rope_frequencies(replace(BASE, scaling="llama3"), 64)
    plain, _ = rope_frequencies(replace(BASE, scaling="none"), 64)
    explicit = replace(BASE, scaling="factors", factors=tuple(plain / scaled))
    np.testing.assert_allclose(rope_frequencies(explicit, 64)[0], scaled, rtol=1e-12)


def test_dims_default_to_the_whole_head() -> None:
    assert len(rope_frequencies(Rope(), 32)[0]) == 16
    assert len(rope_frequencies(Rope(dims=8), 32)[0]) == 4


def test_position_zero_does_not_turn_and_yarn_scales_both_tables() -> None:
    cos, sin = rope_tables(Rope(dims=16), 16, np.array([0, 3]))
    assert cos.dtype == sin.dtype == np.float32
    assert (cos[0] == 1).all()
    assert (sin[0] == 0).all()
    yarn = Rope(dims=16, scaling="yarn", attention_factor=1.5, factor=2.0)
    cos, sin = rope_tables(yarn, 16, np.array([0, 3]))
    np.testing.assert_allclose(cos**2 + sin**2, 1.5**2, rtol=1e-6)


def test_far_positions_stay_exact() -> None:
    """float32 angles would be wrong by 0.004 radians at a position of 100,000; ours are float64."""
    cos, _ = rope_tables(Rope(dims=4), 4, np.array([99_999]))
    assert cos[0, 0] == np.float32(np.cos(99_999.0))


@pytest.mark.parametrize(
    ("rope", "key"),
    [(Rope(dims=7), "rope.dims"), (Rope(dims=18), "rope.dims"), (Rope(dims=-2), "rope.dims"),
     (Rope(dims=8, scaling="factors", factors=(1.0, 2.0)), "rope.factors")],
)  # fmt: skip
def test_impossible_dimensions_are_refused(rope: Rope, key: str) -> None:
    with pytest.raises(BadConfig) as caught:
        rope_frequencies(rope, 16)
    assert caught.value.key == key
