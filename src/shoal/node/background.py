"""An event loop in a thread of its own, so that the terminal can block on the keyboard while the engine lives on.

Ctrl-C reaches the main thread only, wherever it is: at the prompt, or waiting for an answer, whose task it cancels.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Perform = Callable[[Coroutine[Any, Any, Any]], Any]
"""Run a coroutine on the loop and wait for it; KeyboardInterrupt cancels it and waits until it has ended."""


@contextmanager
def background(resource: AbstractAsyncContextManager[T]) -> Iterator[tuple[T, Perform]]:
    """Enter `resource` on the thread's loop; give it and a way to run coroutines there; leave it at the end."""
    opened: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_hold(resource, opened)), name="shoal-background")
    thread.start()
    try:
        value, loop, leave = opened.result()
    except BaseException:
        opened.cancel()
        raise
    try:
        yield value, lambda coroutine: _perform(loop, coroutine)
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()


async def _hold(resource: AbstractAsyncContextManager[T], opened: Future[Any]) -> None:
    leave = asyncio.Event()
    try:
        async with resource as value:
            if opened.cancelled():
                return
            opened.set_result((value, asyncio.get_running_loop(), leave))
            await leave.wait()
    except Exception as error:
        if opened.done():
            raise
        opened.set_exception(error)


def _perform(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    ended = threading.Event()

    async def tracked() -> Any:
        try:
            return await coroutine
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(tracked(), loop)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        ended.wait()
        raise
