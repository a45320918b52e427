"""Two things carriers wait on: `Inbox` (the next item) and `Allowance` (room). Both end with one error for everybody.

A cancelled waiter takes nothing with it: what it would have got goes to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from shoal.core.errors import LinkClosed

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items in order, taken by `get`. After `close` every `get` raises, items left or not."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._error: LinkClosed | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        if self._error is None:
            self._items.append(item)
            _wake_one(self._waiters)

    async def get(self) -> T:
        while self._error is None and not self._items:
            await _wait(self._waiters)
        if self._error is not None:
            raise again(self._error)
        return self._items.popleft()

    def close(self, error: LinkClosed) -> list[T]:
        """The items nobody took, to be closed by the caller. The second close changes nothing."""
        self._error = self._error or error
        left = list(self._items)
        self._items.clear()
        _wake_all(self._waiters)
        return left


class Allowance:
    """Room for so many bytes (or streams). Takers are served in order of arrival."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._error: LinkClosed | None = None

    async def take(self, most: int) -> int:
        """1 to `most`, as soon as there is any room."""
        while self._error is None and self.amount <= 0:
            await _wait(self._waiters)
        if self._error is not None:
            raise again(self._error)
        taken = min(most, self.amount)
        self.amount -= taken
        if self.amount > 0:
            _wake_one(self._waiters)
        return taken

    def give(self, amount: int) -> None:
        self.amount += amount
        _wake_one(self._waiters)

    def fail(self, error: LinkClosed) -> None:
        self._error = self._error or error
        _wake_all(self._waiters)


def again(error: LinkClosed) -> LinkClosed:
    """The same error for one more caller, so that no traceback grows with each who raises it."""
    return type(error)(*error.args)


async def _wait(waiters: deque[asyncio.Future[None]]) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        await waiter
    except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled():
            _wake_one(waiters)
        elif waiter in waiters:
            waiters.remove(waiter)
        raise


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


def _wake_all(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        _wake_one(waiters)
