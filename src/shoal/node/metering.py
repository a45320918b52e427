"""The meter of a node: its energy source, where it stands, and the journal of what its answers cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from shoal.core.errors import BadConfig, InvalidRequest, LocalError
from shoal.core.usage import Usage
from shoal.meter.impact import Cooling, Site
from shoal.meter.journal import SAVE_EVERY_S, Journal
from shoal.meter.metered import Meter
from shoal.meter.places import place
from shoal.meter.source import Watts, open_source
from shoal.node.config import NodeConfig

log = logging.getLogger(__name__)


def journal_path(home: Path) -> Path:
    return home / "meter.json"


def site(config: NodeConfig) -> Site:
    """Where `config` says this machine stands. BadConfig for a place nobody knows."""
    cooling: Cooling = "tower" if config.cooling == "tower" else "none"
    if config.location is None:
        return Site(None, config.pue, cooling, config.power_price)
    try:
        return Site(place(config.location), config.pue, cooling, config.power_price)
    except InvalidRequest as error:
        raise BadConfig("location", str(error).removeprefix("location: ")) from None


def _journal(path: Path) -> Journal:
    """The one there is. A damaged one is moved aside with a word: no report is worth a node that does not start."""
    try:
        return Journal.read(path)
    except LocalError as error:
        aside = path.with_suffix(f".broken-{time.time_ns()}")
        log.warning("%s; it is now %s, and a new one begins", error, aside.name)
        try:
            path.rename(aside)
        except OSError as failure:
            log.warning("%s cannot be moved: %s", path, failure.strerror)
        return Journal(path)


Later = Callable[[float, Callable[[], None]], object]
"""An event loop's `call_later`."""


class Metering:
    """A `Meter` whose answers are written down. A journal that cannot be written is said once and given up.

    later  wakes it where nobody else does, so that the last answer before a pause is written down as soon as any.
    """

    def __init__(self, config: NodeConfig, later: Later) -> None:
        self._later, self._is_waiting = later, False
        self._journal: Journal | None = _journal(journal_path(config.home))
        self._idle = 0.0
        source = open_source(Watts(config.core_watts, config.idle_watts))
        self.meter = Meter(source, site(config), on_answer=self._write)

    def close(self) -> None:
        """Write down what is not yet."""
        if self._journal is not None and self._journal.days:
            self._try(lambda journal: journal.save(time.time()))

    def _write(self, usage: Usage) -> None:
        def add(journal: Journal) -> None:
            idle, self._idle = self.meter.idle_joules - self._idle, self.meter.idle_joules
            journal.idle(idle, time.time())
            journal.add(usage, time.time())

        self._try(add)
        if not self._is_waiting and self._journal is not None and self._journal.fresh:
            self._is_waiting = True
            self._later(SAVE_EVERY_S, self._save_rest)

    def _save_rest(self) -> None:
        self._is_waiting = False
        if self._journal is not None and self._journal.fresh:
            self._try(lambda journal: journal.save(time.time()))

    def _try(self, action: Callable[[Journal], None]) -> None:
        if self._journal is None:
            return
        try:
            action(self._journal)
        except LocalError as error:
            log.warning("costs are no longer written down: %s", error)
            self._journal = None
