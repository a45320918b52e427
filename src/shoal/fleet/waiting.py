"""Waiting on a `Clock` with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed

T = TypeVar("T")


async def within(clock: Clock, limit_s: float, waiting: Awaitable[T]) -> T:
    """The result of `waiting`, or LinkClosed after `limit_s` of silence on `clock`."""
    task = asyncio.ensure_future(waiting)
    alarm = asyncio.ensure_future(clock.sleep(limit_s))
    try:
        await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LinkClosed(f"the peer said nothing for {limit_s:.0f} s though something was due")
    finally:
        for pending in (task, alarm):
            pending.cancel()
        await asyncio.gather(task, alarm, return_exceptions=True)
