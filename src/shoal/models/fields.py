"""Typed access to a model's description, whichever file it came from: GGUF metadata or config.json.

Every getter returns a value of its type and in its range, or raises `BadWeights` naming the file and the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from shoal.core.errors import BadWeights

MAX_LAYERS = 4096
MAX_DIMENSION = 2**31 - 1
MAX_NUMBER = 3.4e38


@dataclass(frozen=True, slots=True)
class Fields:
    """`values` under names that start with `prefix` ("llama." in GGUF, nothing in config.json)."""

    file: str
    values: Mapping[str, Any]
    prefix: str = ""

    def fail(self, name: str, expected: str, found: object) -> NoReturn:
        raise BadWeights(self.file, self.prefix + name, expected, _short(found))

    def get(self, name: str) -> Any:
        """The value, or None where it is absent or null."""
        return self.values.get(self.prefix + name)

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = MAX_DIMENSION) -> int:
        value = self._or_default(name, default)
        if type(value) is not int or not least <= value <= most:
            self.fail(name, f"an integer from {least} to {most}", value)
        return value

    def number(self, name: str, default: float | None = None, above: float = 0.0) -> float:
        """A number greater than `above` that float32 can hold."""
        value = self._or_default(name, default)
        if type(value) not in (int, float) or not above < value <= MAX_NUMBER:
            self.fail(name, f"a finite number above {above}", value)
        return float(value)

    def cap(self, name: str, default: float | None = None) -> float:
        """A soft cap: positive, or 0.0 for none. Absent means `default`; null means none."""
        value = self.values.get(self.prefix + name, default)
        if value is None or value == 0:
            return 0.0
        return self.number(name, default)

    def flag(self, name: str, default: bool) -> bool:
        value = self._or_default(name, default)
        if type(value) is not bool:
            self.fail(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._or_default(name, default)
        if type(value) is not str:
            self.fail(name, "text", value)
        return value

    def must_be(self, name: str, allowed: Sequence[Any], why: str = "Shoal computes nothing else") -> None:
        """Refuse a value that would change the result in a way that is not computed here."""
        value = self.get(name)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            choices = " or ".join(repr(item) for item in allowed) or "nothing"
            self.fail(name, f"{choices} ({why})", value)

    def _or_default(self, name: str, default: Any) -> Any:
        value = self.get(name)
        return default if value is None else value


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
