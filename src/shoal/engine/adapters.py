"""Loaded LoRA adapters: a name, its slot in the runner, and who still uses it. Reading tensors is the runner's work.

Dropping takes the name away at once (new requests get ModelNotFound) and empties the slot when the last request or
session that uses it has ended. Each load has a namespace of its own, so that an adapter loaded again under an old
name never meets keys and values computed with the old one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest, ModelNotFound, Unavailable


@dataclass(slots=True, eq=False)
class Adapter:
    """`on_free` is told the slot once, when the adapter has been dropped and nobody uses it; None until dropped."""

    name: str
    slot: int
    namespace: str
    num_users: int = 0
    on_free: Callable[[int], None] | None = None


BASE = Adapter("", -1, "")
"""No adapter: the model itself. Never dropped, never counted."""


class Adapters:
    def __init__(self, num_slots: int) -> None:
        self._slots = list(range(num_slots - 1, -1, -1))
        self._by_name: dict[str, Adapter] = {}
        self._loads = itertools.count()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def check(self, name: str) -> None:
        """InvalidRequest if the name is taken, Unavailable if all slots are."""
        if not name:
            raise InvalidRequest("lora_name: expected a name, found an empty text", "lora_name")
        if name in self._by_name:
            raise InvalidRequest(f"adapter {name!r}: expected a name that is not loaded; unload it first", "lora_name")
        if not self._slots:
            raise Unavailable("every adapter slot is taken; unload an adapter, or start with more slots")

    def load(self, name: str, fill: Callable[[int], None]) -> Adapter:
        """Give `name` a slot and `fill` it. Raises as `check`."""
        self.check(name)
        fill(self._slots[-1])
        adapter = Adapter(name, self._slots.pop(), f"{name}#{next(self._loads)}")
        self._by_name[name] = adapter
        return adapter

    def acquire(self, name: str | None) -> Adapter:
        """Use an adapter until `release`. ModelNotFound if it is not loaded."""
        if name is None:
            return BASE
        adapter = self._by_name.get(name)
        if adapter is None:
            raise ModelNotFound(name, self.names)
        self.share(adapter)
        return adapter

    def share(self, adapter: Adapter) -> None:
        """One more user of an adapter that has one."""
        if adapter is not BASE:
            adapter.num_users += 1

    def release(self, adapter: Adapter) -> None:
        if adapter is not BASE:
            adapter.num_users -= 1
            self._free_if_unused(adapter)

    def drop(self, name: str, on_free: Callable[[int], None]) -> None:
        """Take the name away now and the slot when it is unused. ModelNotFound if it is not loaded."""
        adapter = self._by_name.pop(name, None)
        if adapter is None:
            raise ModelNotFound(name, self.names)
        adapter.on_free = on_free
        self._free_if_unused(adapter)

    def _free_if_unused(self, adapter: Adapter) -> None:
        if adapter.on_free is not None and not adapter.num_users:
            self._slots.append(adapter.slot)
            adapter.on_free(adapter.slot)
