from __future__ import annotations

import pytest

from shoal.core.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("98 MB", 98_000_000),
        ("4GiB", 4 << 30),
        ("1.5k", 1500),
        ("2gb", 2 * 10**9),
        (" 7 TiB ", 7 << 40),
    ],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("30", 30), ("5min", 300), ("2h", 7200), ("1d", 86400)])
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e3", "4 XB", "1.2.3", "four"])
def test_anything_else_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_size(text)
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


def test_printed_with_three_figures() -> None:
    assert [format_size(n) for n in (0, 999, 98_400_000, 1.5e12)] == ["0 B", "999 B", "98.4 MB", "1.5 TB"]
    durations = (5e-6, 0.0123, 4.56, 125, 11_400)
    assert [format_duration(s) for s in durations] == ["5 µs", "12.3 ms", "4.56 s", "2 min 5 s", "3 h 10 min"]
