"""What has arrived and was not yet accepted: a bounded queue that ends with an error for everybody who waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from shoal.core.errors import ShoalError

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items in order of arrival, at most `limit`; taking one is safe to cancel."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()
        self._end: ShoalError | None = None

    @property
    def is_full(self) -> bool:
        return len(self._items) >= self._limit

    def put(self, item: T) -> bool:
        """False where there is no room or the inbox has ended: the item is still the caller's."""
        if self._end is not None or self.is_full:
            return False
        self._items.append(item)
        self._changed.set()
        return True

    async def take(self) -> T:
        """The oldest item; the error `end` was given once there are none left."""
        while not self._items:
            if self._end is not None:
                raise type(self._end)(str(self._end))
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()

    def end(self, error: ShoalError) -> list[T]:
        """Nothing more arrives; everybody who waits gets `error`. Returns what nobody took."""
        self._end = self._end or error
        left = list(self._items)
        self._items.clear()
        self._changed.set()
        return left
