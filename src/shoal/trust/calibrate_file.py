"""Limits on disk: JSON that people can read. One file ships with Shoal, one belongs to the node and overrules it.

[{"pair": {"answered": ..., "checked": ..., "quantization": ...}, "origin": ...,
  "tails": {"32": {"drift": {"base": ..., "scale": ..., "count": ..., "largest": ...}, ...}, ...}}, ...]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from shoal.core.decoding import compact, parse
from shoal.core.errors import BadConfig, RemoteError
from shoal.trust.calibrate import STATISTICS, Limits, Pair

MAX_BYTES = 4 * 2**20
NATIVE = "cpu native-"
"""Arithmetics of the C kernels."""


def shipped_limits() -> tuple[Limits, ...]:
    """Drawn by `bench/checks.py` on the default model."""
    return parse_limits(resources.files("shoal.trust").joinpath("data/limits.json").read_bytes(), "limits.json")


def read_limits(path: Path) -> tuple[Limits, ...]:
    """Nothing where there is no file; BadConfig for one that is none of ours."""
    if not path.exists():
        return ()
    if path.stat().st_size > MAX_BYTES:
        raise BadConfig(str(path), f"expected limits of at most {MAX_BYTES} bytes")
    return parse_limits(path.read_bytes(), str(path))


def parse_limits(data: bytes, name: str) -> tuple[Limits, ...]:
    """BadConfig, with `name`, for anything but what `format_limits` writes."""
    try:
        listed = json.loads(data)
        if not isinstance(listed, list):
            raise TypeError(f"a list, found {type(listed).__name__}")
        found = tuple(parse(Limits, _with_numbers(item)) for item in listed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, RemoteError) as error:
        raise BadConfig(name, f"expected limits of checks as JSON: {error}") from error
    for limits in found:
        for tails in limits.tails.values():
            numbers = [number for tail in tails.values() for number in (tail.base, tail.scale)]
            if set(tails) != set(STATISTICS) or not all(math.isfinite(n) and n >= 0 for n in numbers):
                raise BadConfig(name, f"expected {', '.join(STATISTICS)} with numbers that are not negative")
    return found


def format_limits(limits: Iterable[Limits]) -> str:
    return json.dumps([compact(item) for item in limits], indent=1) + "\n"


def find(known: Sequence[Limits], pair: Pair) -> Limits | None:
    """The first of this pair. Drift and logit do not depend on who answered and who checks; so where only the reverse
    is known, it is used.

    The same kernels agree to the bit where one compiler made them. Another compiler may round otherwise, and that grows
    to what another instruction set shows; so the line is the widest known between two of those.
    """
    reverse = Pair(pair.checked, pair.answered, pair.quantization)
    for wanted in (pair, reverse):
        if (limits := next((item for item in known if item.pair == wanted), None)) is not None:
            return limits
    if pair.answered != pair.checked:
        return None
    alike = [item for item in known if item.pair.quantization == pair.quantization and _is_native(item.pair)]
    return max(alike, key=lambda item: item.tails[max(item.tails)]["drift"].base, default=None)


def _is_native(pair: Pair) -> bool:
    return pair.answered.startswith(NATIVE) and pair.checked.startswith(NATIVE)


def _with_numbers(item: Any) -> Any:
    """JSON has no integers as keys."""
    return {**item, "tails": {int(length): tails for length, tails in item["tails"].items()}}
