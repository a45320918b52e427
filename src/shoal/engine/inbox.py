"""Functions sent to the worker's thread, and the reason it takes none any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from shoal.core.errors import ShoalError
from shoal.engine.mailbox import Mailbox

Command = Callable[[], Any]
Letter = tuple[Command, Mailbox]
"""What to call, and who waits for what it returns."""


class Inbox:
    """`refusal` is None while commands are taken. Safe to use from any thread."""

    def __init__(self) -> None:
        self.refusal: ShoalError | None = None
        self._letters: list[Letter] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, command: Command, mailbox: Mailbox) -> None:
        """Raises the refusal, if there is one."""
        with self._changed:
            if self.refusal is not None:
                raise self.refusal
            self._letters.append((command, mailbox))
            self._changed.notify()

    def take(self, wait: bool) -> list[Letter]:
        """Everything that has come; with `wait`, something."""
        with self._changed:
            while wait and not self._letters:
                self._changed.wait()
            taken, self._letters = self._letters, []
        return taken

    def close(self, refusal: ShoalError) -> list[Letter]:
        """Take no more; what had come and will not be called."""
        with self._changed:
            self.refusal = refusal
            rest, self._letters = self._letters, []
        return rest
