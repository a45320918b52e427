"""Files written here, read by our reader and by the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from shoal.kernels.quant import quantize_q4_0, quantize_q8_0
from shoal.models.gguf import read_gguf
from shoal.models.gguf_writer import write_gguf
from shoal.models.tensors import Tensor

METADATA: dict[str, Any] = {
    "general.architecture": "llama", "llama.block_count": 3, "llama.rope.freq_base": 0.5, "yes": True, "no": False,
    "text": "höhle 🐟", "none": "", "words": ["a", "", "né"], "nothing": [], "types": [1, 3, 6], "scores": [0.25, -1.5],
    "flags": [True, False], "negative": -7, "large": 2**40, "larger": 2**63, "low": -(2**40), "one": [4],
}  # fmt: skip


def tensors() -> list[Tensor]:
    values = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    vector = values[:1].reshape(-1)[:7].copy()
    return [
        Tensor("vector", (7,), "F32", vector.view(np.uint8).reshape(1, -1)),
        Tensor("q8", (5, 64), "Q8_0", quantize_q8_0(values)),
        Tensor("q4", (5, 64), "Q4_0", quantize_q4_0(values)),
        Tensor("float", (5, 64), "F32", values.view(np.uint8)),
    ]


def test_our_reader_finds_what_was_written(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", METADATA, tensors())
    file = read_gguf(tmp_path / "a.gguf")
    assert dict(file.metadata) == METADATA
    assert [type(value) for value in file.metadata.values()] == [type(value) for value in METADATA.values()]
    for expected in tensors():
        found = file.tensors[expected.name]
        assert (found.shape, found.storage) == (expected.shape, expected.storage)
        assert found.data.tobytes() == expected.data.tobytes()


def test_the_gguf_package_finds_what_was_written(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", METADATA, tensors())
    reader = GGUFReader(tmp_path / "a.gguf")
    for key, value in METADATA.items():
        if value != []:  # the package cannot say what an empty array holds
            assert reader.get_field(key).contents() == value, key
    for expected, found in zip(tensors(), reader.tensors, strict=True):
        assert found.name == expected.name
        assert tuple(reversed(found.shape.tolist())) == expected.shape
        assert found.tensor_type.name == expected.storage
        assert found.data.tobytes() == expected.data.tobytes()


@pytest.mark.parametrize("value", [None, [1, "a"], {"a": 1}, [1.0, 2], [[1]], 1 + 2j])
def test_what_has_no_type_is_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, METADATA, [])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="bad: expected"):
        write_gguf(path, {**METADATA, "bad": value}, [])
    assert path.read_bytes() == before
