"""Sizes and durations as people write them, parsed once and printed one way."""

from __future__ import annotations

import re

_SIZE = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
         "kib": 2**10, "mib": 2**20, "gib": 2**30, "t": 10**12, "tb": 10**12, "tib": 2**40}  # fmt: skip
_DURATION = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str) -> int:
    """Bytes from "98 MB", "4GiB" or "4096". ValueError says what was expected."""
    return int(_parse(text, _SIZE, 'a size such as "4GiB" or "500 MB"'))


def parse_duration(text: str) -> float:
    """Seconds from "250ms", "30s", "5min" or "30". ValueError says what was expected."""
    return _parse(text, _DURATION, 'a duration such as "30s" or "5min"')


def _parse(text: str, units: dict[str, int] | dict[str, float], expected: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected {expected}, found {text!r}")
    return float(match[1]) * units[match[2].lower()]


def format_size(size_bytes: float) -> str:
    """Three significant figures and a decimal unit: 98.4 MB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{int(size_bytes)} B"


def format_duration(seconds: float) -> str:
    """Three significant figures: 12.3 ms, 4.56 s, 2 min 5 s, 3 h 10 min."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
