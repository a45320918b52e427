"""Parsers of configuration values: text or a TOML value in, a typed value out, ValueError saying what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from shoal.core.units import parse_duration, parse_size

T = TypeVar("T")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"expected text, found {value!r}")


def path(value: Any) -> Path:
    return Path(text(value)).expanduser().absolute()


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    raise ValueError(f"expected true or false, found {value!r}")


def integer(low: int, high: int) -> Callable[[Any], int]:
    """Whole numbers from `low` to `high`, both included."""

    def parse(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, int) and not isinstance(number, bool) and low <= number <= high:
            return number
        raise ValueError(f"expected a whole number from {low} to {high}, found {value!r}")

    return parse


def one_of(*allowed: int) -> Callable[[Any], int]:
    """One of a few whole numbers."""

    def parse(value: Any) -> int:
        try:
            number = integer(min(allowed), max(allowed))(value)
        except ValueError:
            number = None
        if number in allowed:
            return int(number)
        raise ValueError(f"expected {' or '.join(map(str, allowed))}, found {value!r}")

    return parse


def size(low: int) -> Callable[[Any], int]:
    """Bytes as a number or as text with a unit, at least `low`."""

    def parse(value: Any) -> int:
        number = parse_size(value) if isinstance(value, str) else integer(0, 2**63)(value)
        if number < low:
            raise ValueError(f"expected at least {low} bytes, found {value!r}")
        return number

    return parse


def duration(value: Any) -> float:
    """Seconds as a number or as text with a unit, more than none."""
    seconds = parse_duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f'expected a time such as "30s" or "5min", found {value!r}')
    return float(seconds)


def price(value: Any) -> float:
    """US dollars, 0 or more."""
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 1e9:
        raise ValueError(f"expected US dollars, 0 or more, found {value!r}")
    return number


def number(low: float, high: float) -> Callable[[Any], float]:
    """Numbers from `low` to `high`, both included."""

    def parse(value: Any) -> float:
        try:
            found = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            found = math.nan
        if low <= found <= high:
            return found
        raise ValueError(f"expected a number from {low:g} to {high:g}, found {value!r}")

    return parse


def choice(*names: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value in names:
            return str(value)
        raise ValueError(f"expected one of {', '.join(names)}, found {value!r}")

    return parse


def drafter(value: Any) -> str:
    """A way to draft; a draft model is named as `model` is."""
    kind, separator, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    is_plain = kind in ("auto", "off", "lookup", "suffix", "learned") and not separator
    if is_plain or (kind in ("model", "hybrid", "learned") and name.strip()):
        return str(value)
    raise ValueError(
        f"expected auto, off, lookup, suffix, learned, or model:, hybrid: or learned:NAME, found {value!r}"
    )


def optional(parse: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """`auto` is None; anything else is `parse`'s."""

    def parse_optional(value: Any) -> T | None:
        return None if value == "auto" else parse(value)

    return parse_optional


def texts(value: Any) -> tuple[str, ...]:
    """A TOML array of texts, or text with commas; empty text is no element."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, list | tuple):
        return tuple(text(item) for item in value)
    raise ValueError(f"expected a list of texts, found {value!r}")


def pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """A TOML table of texts, or texts of the form name=value. No name twice."""
    if isinstance(value, Mapping):
        found = tuple((name, text(item)) for name, item in value.items())
    else:
        found = tuple(_pair(item) for item in texts(value))
    names = [name for name, _ in found]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"expected each name once, found {repeated[0]!r} twice")
    return found


def _pair(item: str) -> tuple[str, str]:
    name, separator, rest = item.partition("=")
    if not (name.strip() and separator and rest.strip()):
        raise ValueError(f"expected NAME=VALUE, found {item!r}")
    return name.strip(), rest.strip()
