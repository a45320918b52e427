"""Calls at once, owned: whoever leaves takes its calls along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from shoal.mesh.dht.contact import Contact
from shoal.mesh.dht.lookup import Lookup

T = TypeVar("T")

Ask = Callable[[Contact], Coroutine[Any, Any, Sequence[Contact] | None]]
"""What a peer told of nearer ones; None when it did not answer well."""


async def walk(lookup: Lookup, ask: Ask, is_enough: Callable[[], bool]) -> None:
    """Drive a lookup to its end, or until there is enough."""
    flying: dict[asyncio.Task[Sequence[Contact] | None], Contact] = {}
    try:
        while not is_enough():
            flying |= {asyncio.ensure_future(ask(contact)): contact for contact in lookup.queries()}
            if not flying:
                return
            done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: flying[task].place):
                contact, told = flying.pop(task), task.result()
                if told is None:
                    lookup.failed(contact)
                else:
                    lookup.replied(contact, told)
    finally:
        await _end(list(flying))


async def together(work: Sequence[Awaitable[T]]) -> list[T]:
    """All results in order; when this is cancelled, so is all the work."""
    return list(await asyncio.gather(*work))


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
