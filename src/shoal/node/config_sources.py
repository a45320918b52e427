"""Reads NodeConfig and remembers where each value came from: default, profile, file, environment or flag.

The last one wins. The tuned profile is read last all the same: whether it fits depends on the model the others name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.core.errors import BadConfig
from shoal.node.config import OPTIONS, NodeConfig
from shoal.node.home import config_file, home
from shoal.node.profiles import profile_file, profile_options

PREFIX = "SHOAL_"
NOT_OPTIONS = ("SHOAL_CONFIG", "SHOAL_TEST_GGUF")
"""Variables with our prefix that are no options: the configuration file's place, and the tests' model file."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for each option "default", the profile's or file's path, a variable's or a flag's name.

    notes  lines for the person, such as that a profile was ignored.
    """

    config: NodeConfig
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()


def load(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Loaded:
    """Configuration from everywhere; a flag that is None was not given. BadConfig names the key at fault."""
    values, origins = _given(flags, environment)
    path = profile_file(environment)
    options, note = profile_options(path, NodeConfig(**values)) if path.exists() else ({}, None)
    for name, value in options.items():
        if origins[name] == "default":
            values[name] = _parsed(name, value, f"{path}: {name}")
            origins[name] = str(path)
    return Loaded(NodeConfig(**values), origins, () if note is None else (note,))


def _given(flags: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and origins of what a person said; the rest is at its default."""
    values: dict[str, Any] = {"home": home(environment)}
    origins = {option.name: "default" for option in OPTIONS}
    for name, value, origin, key in (*_file(environment), *_environment(environment), *_flags(flags)):
        values[name] = _parsed(name, value, key)
        origins[name] = origin
    return values, origins


def _parsed(name: str, value: Any, key: str) -> Any:
    parse = next(option.parse for option in OPTIONS if option.name == name)
    try:
        return parse(value)
    except ValueError as error:
        raise BadConfig(key, str(error)) from None


Found = tuple[str, Any, str, str]
"""Option, raw value, where it came from, what to call it in an error."""


def _file(environment: Mapping[str, str]) -> Iterator[Found]:
    path = config_file(environment)
    names = [option.name for option in OPTIONS]
    for name, value in _read_toml(path, is_required="SHOAL_CONFIG" in environment).items():
        if name not in names:
            raise BadConfig(f"{path}: {name}", _unknown("key", name, names))
        yield name, value, str(path), f"{path}: {name}"


def _read_toml(path: Path, is_required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_required:
            raise BadConfig("SHOAL_CONFIG", f"there is no file {str(path)!r}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(str(path), f"expected a TOML file: {error}") from error


def _environment(environment: Mapping[str, str]) -> Iterator[Found]:
    variables = {PREFIX + option.name.upper(): option.name for option in OPTIONS}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in NOT_OPTIONS:
            continue
        if variable not in variables:
            raise BadConfig(variable, _unknown("variable", variable, (*variables, *NOT_OPTIONS)))
        yield variables[variable], environment[variable], variable, variable


def _flags(flags: Mapping[str, Any]) -> Iterator[Found]:
    names = {option.name: option.flag for option in OPTIONS}
    for name, value in flags.items():
        if value is not None and value != []:
            yield name, value, names[name], names[name]


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say about a key nobody knows: the nearest one that exists."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
    return f"unknown {kind}; the nearest that exists is {near[0]}"
