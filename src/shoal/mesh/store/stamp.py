"""Hybrid logical time (Kulkarni and others 2014): milliseconds of a wall clock and a counter in one integer.

A stamp made after another was seen is larger, even where this machine's clock is behind by up to the accepted skew.
"""

from __future__ import annotations

COUNTER_BITS = 16
MAX_STAMP = 2**63 - 1


def stamp_at(wall_s: float) -> int:
    """The first stamp of a time in seconds since 1970."""
    return int(wall_s * 1000) << COUNTER_BITS


def wall_s(stamp: int) -> float:
    """The wall time a stamp claims."""
    return (stamp >> COUNTER_BITS) / 1000


def next_stamp(seen: int, now_s: float) -> int:
    """Larger than any stamp seen, and not before now."""
    return max(seen + 1, stamp_at(now_s))
