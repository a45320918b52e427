"""Mapped files: what was read can be given back and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shoal.models.mapped import let_go, map_file


def resident_kb(name: str) -> int:
    """Of the mapping of a file of this name, as Linux counts."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(name):
            return next(int(row.split()[1]) for row in lines if row.startswith("Rss:"))
    raise AssertionError(f"{name} is not mapped")


def test_a_part_that_was_let_go_takes_no_memory_and_reads_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    data = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    data.tofile(path)
    mapped = map_file(path)
    part = mapped[5000:-7000].reshape(2, -1)
    assert np.array_equal(mapped, data)
    before = resident_kb("weights.bin")
    let_go(part)
    assert resident_kb("weights.bin") <= before - 900
    assert np.array_equal(part.reshape(-1), data[5000:-7000])


def test_memory_of_other_kinds_is_left_alone() -> None:
    values = np.arange(100_000)
    let_go(values[10:].view(np.uint8))
    assert np.array_equal(values, np.arange(100_000))
