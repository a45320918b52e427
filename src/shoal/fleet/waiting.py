"""Waiting on a `Clock` with a bound: see `core.waiting`."""

from __future__ import annotations

from shoal.core.waiting import within

__all__ = ["within"]
