"""Where joules come from on this machine: counters first, a model last, and always said which.

rapl      processor packages (whole machine's processors, other processes included)
nvml      NVIDIA GPUs, added to rapl or to the model
battery   everything, while a laptop runs on its battery
modelled  this process' CPU-seconds * watts of a busy core + watts of the idle machine * seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shoal.meter.battery import POWER_SUPPLY, battery_watts
from shoal.meter.nvml import Nvml, open_nvml
from shoal.meter.rapl import POWERCAP, joules_between, read

CORE_WATTS = 7.0
"""Of one busy core where nothing is stated. Published thermal design power over cores: 2.3 W (Ampere Altra, 250 W / 128
cores with the chip's share) to 15 W (desktop parts, 125 W / 8); servers of 2023 about 4 to 8 W."""
CORE_WATTS_ERROR = 0.6
"""Half width of the band around the model, as a share: it covers that range, no measurement stands behind it."""
STATED_ERROR = 0.2
"""The same where the owner stated watts of his machine."""


@dataclass(frozen=True, slots=True)
class Watts:
    """What the owner says of his machine: watts of one busy core, and of the idle machine. None: not stated."""

    core: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class EnergySource:
    """`joules()` only grows from call to call; differences mean energy. error: half width of the band, as a share."""

    name: str
    error: float | None
    joules: Callable[[], float]


def open_source(watts: Watts, powercap: Path = POWERCAP, power_supply: Path = POWER_SUPPLY) -> EnergySource:
    """The best source readable now. What is chosen stays chosen while the process lives."""
    gpus = open_nvml()
    if battery_watts(power_supply) is not None:
        return _battery(power_supply)
    if read(powercap) is not None:
        return _with_gpus(EnergySource("rapl", None, _Rapl(powercap)), gpus)
    return _with_gpus(modelled(watts), gpus)


def modelled(
    watts: Watts, cpu: Callable[[], float] = time.process_time, wall: Callable[[], float] = time.monotonic
) -> EnergySource:
    """The model; its name says what is in it, so that nobody takes it for a reading."""
    core = CORE_WATTS if watts.core is None else watts.core
    idle = watts.idle or 0.0
    error = CORE_WATTS_ERROR if watts.core is None else STATED_ERROR
    name = f"modelled: CPU-seconds * {core:g} W" + (f" + {idle:g} W idle" if idle else "")
    return EnergySource(name, error, lambda: cpu() * core + wall() * idle)


def _with_gpus(source: EnergySource, gpus: Nvml | None) -> EnergySource:
    if gpus is None:
        return source
    return EnergySource(f"{source.name} + nvml", source.error, lambda: source.joules() + gpus.joules())


def _battery(root: Path) -> EnergySource:
    return EnergySource("battery", 0.1, _Integral(lambda: battery_watts(root)))


class _Rapl:
    """Counters that start again at zero, made one that only grows."""

    def __init__(self, root: Path) -> None:
        self._root, self._last, self._total = root, read(root), 0.0

    def __call__(self) -> float:
        now = read(self._root)
        if now is not None and self._last is not None:
            self._total += joules_between(self._last, now)
            self._last = now
        return self._total


class _Integral:
    """Watts over time, by the trapezoid between calls. A reading that fails keeps the last watts."""

    def __init__(self, watts: Callable[[], float | None], now: Callable[[], float] = time.monotonic) -> None:
        self._watts, self._now = watts, now
        self._last, self._at, self._total = watts() or 0.0, now(), 0.0

    def __call__(self) -> float:
        watts, now = self._watts(), self._now()
        watts = self._last if watts is None else watts
        self._total += (now - self._at) * (self._last + watts) / 2
        self._last, self._at = watts, now
        return self._total
