"""What `--share-layers` and `--split` may say, and what is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shoal.core.errors import BadConfig
from shoal.node.config import NodeConfig
from shoal.node.layers import KEPT_FIRST, KEPT_LAST, Wish, check_layers, parse_layers, parse_split


def test_options_name_a_model_and_two_numbers() -> None:
    assert parse_layers("smollm2-135m:8-29") == Wish("smollm2-135m", 8, 29)
    assert parse_layers("/a:b/c.gguf:0-4") == Wish("/a:b/c.gguf", 0, 4)
    assert parse_split("smollm2-135m:3+2") == Wish("smollm2-135m", 3, 2)
    assert parse_split("/a:b/c.gguf") == Wish("/a:b/c.gguf", KEPT_FIRST, KEPT_LAST)


@pytest.mark.parametrize("text", ["smollm2-135m", "m:8", "m:8+29", "m:-1-4", "m:8-29-30 ", "m:1-999999", ":1-2x"])
def test_layers_that_are_no_range_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="MODEL:FIRST-END"):
        parse_layers(text)


def test_layers_need_somebody_to_compute_for_and_to_ask(tmp_path: Path) -> None:
    config = NodeConfig(home=tmp_path)
    with pytest.raises(BadConfig, match="--share"):
        check_layers(replace(config, share_layers=("m:1-2",), tickets=("x",)), is_in_mesh=True)
    with pytest.raises(BadConfig, match="--ticket"):
        check_layers(replace(config, split=("m:1+1",)), is_in_mesh=False)
    check_layers(replace(config, share=True, share_layers=("m:1-2",), split=("m:1+1",)), is_in_mesh=True)
