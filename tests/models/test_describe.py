"""`describe` on the real default model; and what is cut short anywhere is refused when it is pulled."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.core.errors import BadWeights
from shoal.models.catalogue import DiskSource
from shoal.models.describe import describe
from shoal.models.pull import pull
from shoal.models.store import Store


@pytest.mark.real
def test_the_default_model_described(default_gguf: Path) -> None:
    found = describe(default_gguf)
    assert (found.config.family, found.config.num_layers, found.config.context_length) == ("llama", 30, 8192)
    assert (found.num_parameters, found.quantization) == (134_515_008, "Q4_1")
    assert found.tokenizer.vocab_size == 49152
    assert 2 in found.tokenizer.eos_ids
    assert found.has_chat_template
    assert sum(use.size_bytes for use in found.storages) < found.size_bytes


@pytest.mark.real
@pytest.mark.parametrize("size", [10, 1_000_000, 50_000_000])
def test_a_truncated_file_is_refused_by_name(default_gguf: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.gguf"
    with default_gguf.open("rb") as whole:
        path.write_bytes(whole.read(size))
    with pytest.raises(BadWeights, match=r"cut\.gguf: .*expected"):
        pull(Store(tmp_path / "store"), "cut", str(path), DiskSource(path))
    assert Store(tmp_path / "store").records() == []


@pytest.mark.real
def test_a_file_says_its_own_licence(default_gguf: Path, tmp_path: Path) -> None:
    record = pull(Store(tmp_path), "mine", "mine", DiskSource(default_gguf))
    assert record.licence == "apache-2.0"
    assert Store(tmp_path).resolve("mine") == default_gguf
