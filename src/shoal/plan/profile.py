"""The tuned profile: a TOML file beside the configuration, valid for one machine and one model.

Values of a profile stand between defaults and the user's file. A profile of another machine or model is stale: it is
kept, ignored, and said so in one line. A file that is no profile at all is an error.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from shoal.core.errors import BadConfig
from shoal.plan.space import Settings, Value

FILE = "profile.toml"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a profile is for. cores: those the process may use; kernels: the best instruction set they run;
    weights: the stored model's SHA-256, or for a file or folder outside the store its name and size."""

    processor: str
    cores: int
    kernels: str
    model: str
    weights: str

    def difference(self, other: Fingerprint) -> str | None:
        """The first thing in which the two differ, in words; None where they are equal."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if mine != theirs:
                return f"{item.name} was {_short(mine)}, is {_short(theirs)}"
        return None


@dataclass(frozen=True, slots=True)
class Profile:
    """options: only what differs from the defaults. score and default_score: of the confirmation, in `unit`."""

    fingerprint: Fingerprint
    objective: str
    unit: str
    score: float
    default_score: float
    options: dict[str, Value]


def write_profile(path: Path, profile: Profile) -> None:
    """Whole or not at all: a reader never sees half of it."""
    header = {"objective": profile.objective, "unit": profile.unit, "score": round(profile.score, 3),
              "default_score": round(profile.default_score, 3)}  # fmt: skip
    text = "# Written by `shoal tune`. Delete this file to return to the defaults.\n" + _lines(header)
    text += "\n[for]\n" + _lines(asdict(profile.fingerprint)) + "\n[options]\n" + _lines(profile.options)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_profile(path: Path) -> Profile | None:
    """None where there is no file; BadConfig where it is not a profile."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(path, str(error)) from error
    try:
        return _parse(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(path, f"{type(error).__name__} {error}") from error


def _parse(found: Mapping[str, Any]) -> Profile:
    given, options = found["for"], found["options"]
    fingerprint = Fingerprint(**{item.name: _typed(given[item.name], item.type) for item in fields(Fingerprint)})
    if not all(isinstance(value, int | str) for value in options.values()):
        raise TypeError("options: expected numbers, texts or true and false")
    return Profile(
        fingerprint, _typed(found["objective"], "str"), _typed(found["unit"], "str"),
        float(found["score"]), float(found["default_score"]), dict(options),
    )  # fmt: skip


def _typed(value: Any, kind: Any) -> Any:
    if not isinstance(value, int if kind == "int" else str) or isinstance(value, bool):
        raise TypeError(f"expected {kind}, found {value!r}")
    return value


def _lines(table: Settings | Mapping[str, Any]) -> str:
    """JSON's spelling of text, numbers and truth is TOML's too, once nothing outside ASCII is left as it is."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _bad(path: Path, why: str) -> BadConfig:
    return BadConfig(str(path), f"expected a profile as `shoal tune` writes it ({why}); delete it or tune again")
