"""The tiny model is a real checkpoint: right shapes, a working tokenizer, and the same numbers for the same seed."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from shoal.models.config import Family
from shoal.models.forced import forced_logits
from shoal.models.names import expected_shapes
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.models.torch_runner import TorchRunner


@pytest.mark.parametrize("family", get_args(Family))
def test_weights_are_what_the_family_reads_and_depend_on_the_seed(family: Family) -> None:
    one, same, other = (tiny_checkpoint(family, seed=seed) for seed in (1, 1, 2))
    assert {name: tensor.shape for name, tensor in one.weights.items()} == expected_shapes(one.config)
    for name, tensor in one.weights.items():
        assert np.array_equal(tensor.data, same.weights[name].data)
        assert not np.array_equal(tensor.data, other.weights[name].data)


def test_any_text_round_trips_one_byte_a_token() -> None:
    tokenizer = load_tokenizer(tiny_checkpoint().tokenizer)
    text = "Grüße, 海 🐟\t\x00 <|im_end|>"
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id == 258


def test_answers_vary() -> None:
    """A model that says one token for ever would hide mistakes in everything above it."""
    runner = TorchRunner(tiny_checkpoint(shape=TinyShape(num_layers=3)), num_blocks=8)
    logits = forced_logits(runner, [list(range(100))])[0]
    assert len(set(logits.argmax(axis=1).tolist())) > 20


def test_sequences_that_do_not_fit_are_refused() -> None:
    runner = TorchRunner(tiny_checkpoint(), num_blocks=2, block_size=4)
    with pytest.raises(ValueError, match="2 blocks"):
        forced_logits(runner, [[1] * 9])
