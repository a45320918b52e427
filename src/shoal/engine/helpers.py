"""Threads that prepare requests: templates, tokens, grammars.

Rules that stay true in this file:
- what may wait (a priority above 0, which peers' requests have) is prepared one at a time, so that however much of it
  there is, the owner's next request finds a free thread;
- a request is over when its thread is: whoever cancels waits for what has begun, so cancelled work does not pile up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
URGENT = 4


class Helpers:
    def __init__(self) -> None:
        self._urgent = ThreadPoolExecutor(URGENT, "shoal-prepare")
        self._patient = ThreadPoolExecutor(1, "shoal-prepare-later")

    async def run(self, priority: int, work: Callable[[], T]) -> T:
        """The result of `work`, in a thread."""
        begun = (self._patient if priority > 0 else self._urgent).submit(work)
        waiting = asyncio.ensure_future(asyncio.wrap_future(begun))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not begun.cancel():
                await asyncio.wait((waiting,))
                waiting.exception()
            raise

    def close(self) -> None:
        """What has not begun is dropped."""
        for pool in (self._urgent, self._patient):
            pool.shutdown(wait=False, cancel_futures=True)
