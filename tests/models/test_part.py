"""A network run in parts, one after the other, is the whole network, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shoal.core.errors import BadConfig
from shoal.models.batch import Batch
from shoal.models.config import Family, Part
from shoal.models.native_runner import NativeRunner
from shoal.models.part import part_of
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.torch_runner import TorchRunner

FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral", "qwen3moe")
SHAPE = TinyShape(num_layers=4)
CUTS = (Part(0, 1, has_embedding=True), Part(1, 3), Part(3, 4, has_head=True))


def runner(kind: str, checkpoint: Any) -> Any:
    if kind == "torch":
        return TorchRunner(checkpoint, num_blocks=8, block_size=16)
    return NativeRunner(checkpoint, num_blocks=8, block_size=16, threads=1, kv_type="f32")


def prompt_step(start: int, tokens: list[int]) -> Batch:
    """One sequence in blocks 2, 5, 1; the logits of every row."""
    positions = np.arange(start, start + len(tokens), dtype=np.int32)
    table = np.array([[2, 5, 1]], np.int32)
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=positions,
        slots=table[0][positions // 16] * 16 + positions % 16,
        query_start=np.array([0, len(tokens)], np.int32),
        context_lens=np.array([start + len(tokens)], np.int32),
        block_tables=table,
        adapters=np.array([-1], np.int32),
        output_rows=np.arange(len(tokens), dtype=np.int32),
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["native", "torch"])
def test_parts_in_a_row_are_the_whole(family: Family, kind: str) -> None:
    checkpoint = tiny_checkpoint(family, shape=SHAPE, storage="Q8_0")
    whole, parts = runner(kind, checkpoint), [runner(kind, part_of(checkpoint, part)) for part in CUTS]
    chance = np.random.default_rng(3)
    for start, count in ((0, 21), (21, 1), (22, 1), (23, 9)):
        step = prompt_step(start, chance.integers(0, 256, count).tolist())
        expected = whole.run(step).copy()
        stream = None
        for part in parts:
            stream = part.run(replace(step, inputs=stream)).copy()
        np.testing.assert_array_equal(stream, expected)
    for item in (whole, *parts):
        item.close()


def test_a_part_holds_only_its_own_weights() -> None:
    checkpoint = tiny_checkpoint(shape=SHAPE)
    middle = part_of(checkpoint, Part(1, 3))
    assert {name.split(".")[1] for name in middle.weights} == {"0", "1"}
    assert middle.config.num_layers == 2
    ends = part_of(tiny_checkpoint("gemma2", shape=SHAPE), Part(4, 4, has_head=True))
    assert set(ends.weights) == {"token_embd.weight", "output_norm.weight"}, "a tied head is the embedding"


def test_an_empty_part_passes_the_stream_on() -> None:
    checkpoint = tiny_checkpoint(shape=SHAPE)
    nothing = runner("native", part_of(checkpoint, Part(2, 2)))
    step = prompt_step(0, [1, 2, 3])
    stream = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_array_equal(nothing.run(replace(step, inputs=stream)), stream)
    with pytest.raises(ValueError, match="expected inputs"):
        nothing.run(step)
    nothing.close()


@pytest.mark.parametrize("part", [Part(-1, 2), Part(3, 2), Part(0, 5)])
def test_layers_that_are_not_there_are_refused(part: Part) -> None:
    with pytest.raises(BadConfig, match="expected layers within 0 to 4"):
        part_of(tiny_checkpoint(shape=SHAPE), part)
