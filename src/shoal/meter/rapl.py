"""Joules as the machine's own counters say (RAPL through Linux powercap). Whole processors, not only this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Reading:
    """Microjoules of each package's counter, and the value after which it starts again at 0."""

    counters_uj: Mapping[str, int]
    ranges_uj: Mapping[str, int]


def read(root: Path = POWERCAP) -> Reading | None:
    """Counters of the processor packages (`intel-rapl:0`, not their parts `intel-rapl:0:1`); None: none readable."""
    counters, ranges = {}, {}
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        try:
            counters[zone.name] = int((zone / "energy_uj").read_text())
            ranges[zone.name] = int((zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return None
    return Reading(counters, ranges) if counters else None


def joules_between(before: Reading, after: Reading) -> float:
    """A counter that went back has started again once; intervals are far shorter than two rounds."""
    total = 0
    for name, start in before.counters_uj.items():
        used = after.counters_uj[name] - start
        total += used if used >= 0 else used + before.ranges_uj[name]
    return total / 1e6
