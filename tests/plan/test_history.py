"""Rows on disk: appended, bounded, and whole after a crash in the middle of a line."""

from __future__ import annotations

from pathlib import Path

from shoal.plan.history import History
from shoal.plan.table import Row


def row(number: int) -> Row:
    return Row({"tokens": float(number)}, "a", 1.0 + number)


def test_rows_come_back_in_order_and_in_another_process_too(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "history.jsonl"
    history = History(path)
    assert history.rows() == []
    for number in range(5):
        history.append(row(number))
    assert History(path).rows() == history.rows() == [row(number) for number in range(5)]


def test_it_is_bounded_on_disk_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path, max_rows=10)
    for number in range(95):
        history.append(row(number))
        assert len(path.read_text().splitlines()) <= 20
        assert history.rows()[-1] == row(number)
    assert history.rows() == [row(number) for number in range(85, 95)]
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_line_and_foreign_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path).append(row(1))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + b'\xff\x00 no row\n{"features": 3}\n' + whole[:cut])
        history = History(path)
        history.append(row(2))
        assert history.rows()[-1] == row(2)
        assert history.rows()[0] == row(1)
