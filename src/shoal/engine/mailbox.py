"""From the worker thread to event loops: one wake-up per loop and step, however many chunks there are.

A slow reader never blocks the worker: its mailbox grows, by no more than its request's max_tokens chunks.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Mailbox:
    """What one reader waits for, in the event loop that was running when it was made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    async def get(self) -> Any:
        """The next item; an exception that was posted is raised."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    def put(self, item: Any) -> None:
        """Only from the mailbox's own loop; other threads go through a `Courier`."""
        self._items.put_nowait(item)


class Courier:
    """Collects what one step has to say and delivers it at its end."""

    def __init__(self) -> None:
        self._letters: dict[asyncio.AbstractEventLoop, list[tuple[Mailbox, Any]]] = {}

    def post(self, mailbox: Mailbox, item: Any) -> None:
        self._letters.setdefault(mailbox.loop, []).append((mailbox, item))

    def deliver(self) -> None:
        letters, self._letters = self._letters, {}
        for loop, items in letters.items():
            if not loop.is_closed():
                _call_soon(loop, items)


def _call_soon(loop: asyncio.AbstractEventLoop, items: list[tuple[Mailbox, Any]]) -> None:
    try:
        loop.call_soon_threadsafe(_put_all, items)
    except RuntimeError:
        return  # the loop closed this instant: nobody is left to read


def _put_all(items: list[tuple[Mailbox, Any]]) -> None:
    for mailbox, item in items:
        mailbox.put(item)
