"""Watts drawn from a laptop's battery while it is not charging (Linux, sysfs class power_supply): the whole machine."""

from __future__ import annotations

from pathlib import Path

POWER_SUPPLY = Path("/sys/class/power_supply")


def battery_watts(root: Path = POWER_SUPPLY) -> float | None:
    """Sum over discharging batteries; None without one. Kernel units are microwatts, microamperes, microvolts."""
    watts = [_watts(folder) for folder in sorted(root.glob("BAT*")) if _text(folder / "status") == "Discharging"]
    known = [value for value in watts if value is not None]
    return sum(known) if known and len(known) == len(watts) else None


def _watts(folder: Path) -> float | None:
    power = _number(folder / "power_now")
    if power is not None:
        return power / 1e6
    current, voltage = _number(folder / "current_now"), _number(folder / "voltage_now")
    return current * voltage / 1e12 if current is not None and voltage is not None else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return abs(float(_text(path)))
    except ValueError:
        return None
