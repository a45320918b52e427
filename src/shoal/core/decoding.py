"""Frozen dataclasses to plain values and back: what crosses a wire as canonical bytes is one of ours or is refused.

Rules that stay true in this file:
- `parse(type(x), compact(x))` equals x, and fields at their default are left out of `compact(x)`;
- `parse` takes nothing on trust: an unknown field, a missing one, a value of another type is a `RemoteError` that says
  where (`sampling.top_p`), what was expected and what came. Sizes are bounded by the bytes the value came from;
- a map whose order tells (`ORDERED`) crosses as JSON text: canonical bytes sort their keys, and a model that reads a
  tool's schema in another order is asked something else.

Annotations understood: None, bool, int, float, str, bytes, Literal, dataclasses, unions, tuple[X, ...], Mapping[K, V]
and Any (any plain value).
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from shoal.core.encoding import encode
from shoal.core.errors import RemoteError

T = TypeVar("T")
Parser = Callable[[Any, str], Any]

ORDERED = types.MappingProxyType({"ordered": True})
"""Metadata of a field that holds a JSON object and keeps the order of its keys."""


def compact(value: Any) -> Any:
    """A plain value (dicts, lists, scalars) that `parse` reads back. Dataclasses become maps of what is not default."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((item, getattr(value, item.name)) for item in fields(value))
        return {item.name: _field(item, part) for item, part in pairs if not _is_default(item, part)}
    if isinstance(value, Mapping):
        return {key: compact(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [compact(part) for part in value]
    return value


def parse(kind: Callable[..., T], value: Any) -> T:
    """The `kind`, a dataclass, that `compact` made `value` of. RemoteError for anything else."""
    result: T = _parser(kind)(value, "")
    return result


def _field(item: Field[Any], value: Any) -> Any:
    return _text(value) if "ordered" in item.metadata else compact(value)


def _text(value: Mapping[str, Any]) -> str:
    """One text for one object in its order. ValueError or TypeError for what has no canonical bytes either."""
    encode(value)
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _ordered(value: Any, path: str) -> Any:
    """Reads what `_text` writes, and nothing else."""
    if type(value) is not str:
        raise _wrong(path, "JSON text", value)
    try:
        found = json.loads(value)
        if type(found) is dict and _text(found) == value:
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    raise _wrong(path, "an object as compact JSON text", value)


def _is_default(item: Field[Any], value: Any) -> bool:
    if item.default is not MISSING:
        return type(value) is type(item.default) and bool(value == item.default)
    return item.default_factory is not MISSING and bool(value == item.default_factory())


@cache
def _parser(kind: Any) -> Parser:
    """What reads one annotation."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _fields_parser(kind)
    if origin in (Union, types.UnionType):
        return _any_of(tuple(_parser(arg) for arg in args))
    if origin is Literal:
        return _one_of(args)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _items(_parser(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _entries(_parser(args[0]), _parser(args[1]))
    if kind is Any:
        return lambda value, path: value
    return _scalar(kind)


def _fields_parser(kind: Any) -> Parser:
    required = {
        item.name for item in fields(kind) if item.init and item.default is MISSING and item.default_factory is MISSING
    }

    def read(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong(path, f"a map of {kind.__name__}", value)
        parsers = _parsers_of(kind)
        if unknown := [name for name in value if name not in parsers]:
            raise RemoteError(f"{path or kind.__name__}: unknown field {unknown[0]!r:.80}")
        if missing := required - value.keys():
            raise RemoteError(f"{path or kind.__name__}: field {min(missing)!r} is missing")
        return kind(**{name: parsers[name](part, f"{path}.{name}" if path else name) for name, part in value.items()})

    return read


@cache
def _parsers_of(kind: Any) -> dict[str, Parser]:
    """Of each field; asked for at first use, because a class may hold itself."""
    hints = get_type_hints(kind, vars(sys.modules[kind.__module__]), {})  # no locals: a field may be called `bytes`
    items = [item for item in fields(kind) if item.init]
    return {item.name: _ordered if "ordered" in item.metadata else _parser(hints[item.name]) for item in items}


def _any_of(parsers: tuple[Parser, ...]) -> Parser:
    def read(value: Any, path: str) -> Any:
        reasons = []
        for parser in parsers:
            try:
                return parser(value, path)
            except RemoteError as error:
                reasons.append(str(error))
        raise RemoteError(" or ".join(dict.fromkeys(reasons)))

    return read


def _one_of(allowed: tuple[Any, ...]) -> Parser:
    def read(value: Any, path: str) -> Any:
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise _wrong(path, f"one of {', '.join(map(repr, allowed))}", value)
        return value

    return read


def _items(parser: Parser) -> Parser:
    def read(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _wrong(path, "an array", value)
        return tuple(parser(item, f"{path}[{index}]") for index, item in enumerate(value))

    return read


def _entries(of_key: Parser, of_value: Parser) -> Parser:
    def read(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong(path, "a map", value)
        return {of_key(key, path): of_value(part, f"{path}.{key}"[:200]) for key, part in value.items()}

    return read


def _scalar(kind: type) -> Parser:
    allowed = (int, float) if kind is float else (kind,)

    def read(value: Any, path: str) -> Any:
        if type(value) not in allowed:
            raise _wrong(path, kind.__name__, value)
        return float(value) if kind is float else value

    return read


def _wrong(path: str, expected: str, value: Any) -> RemoteError:
    return RemoteError(f"{path or 'value'}: expected {expected}, found {type(value).__name__} {value!r:.60}")
