"""Untrusted bytes become a typed value here, or an error that names the field. Faces an adversary.

Rules that stay true in this file:
- no more than `limit` bytes of a body are ever held;
- what JSON does not allow (NaN, Infinity, duplicate keys, lone surrogates) is refused, not repaired;
- the work is bounded by the size of the body: depth, values, keys per object and reported errors are limited;
- the event loop parses small bodies only.

What this does not protect against: many clients at once. That is the bounded queue's job.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from itertools import accumulate
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from shoal.core.errors import InvalidRequest
from shoal.server.config import ServerConfig
from shoal.server.errors import ClientGone, Refused
from shoal.server.explain import invalid

MAX_DEPTH = 64
"""Nesting of a body. JSON Schemas of real tools stay below 20; OpenAI's own limit for strict schemas is 10."""

MAX_KEYS = 4096
"""Keys in one object: each unknown one costs a validation error. Real bodies stay below 100."""

INLINE_BYTES = 32 * 1024
"""A larger body is parsed in a helper thread; one of this size takes 8 ms at the worst."""

MAX_CONTAINERS = 100_000
"""Arrays and objects in a body. `messages` and `input` have at most some thousand, each with a handful."""

MAX_VALUES = 1_000_000
"""About: commas. Two million characters of prompt are 500,000 token ids."""

_STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
_NO_MARKS = bytes(set(range(256)) - set(b'[]{},"'))

Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, shape: type[Body], config: ServerConfig) -> Body:
    """The body of `request` as a `shape`. Refused (408, 413, 415), InvalidRequest, or ClientGone."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "unsupported_media_type", f"expected Content-Type: application/json, found {media_type!r}")
    try:
        async with asyncio.timeout(config.body_timeout_s):
            data = await _bytes(request, config.max_body_bytes)
    except TimeoutError:
        raise Refused(408, "body_timeout", f"the body took longer than {config.body_timeout_s:g} s") from None
    except ClientDisconnect:
        raise ClientGone from None
    if len(data) <= INLINE_BYTES:
        return validate(parse_json(data), shape)
    return await asyncio.to_thread(_parse_large, data, shape)


def _parse_large(data: bytes, shape: type[Body]) -> Body:
    check_outline(data)
    return validate(parse_json(data), shape)


async def _bytes(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for part in request.stream():
        if len(data) + len(part) > limit:
            raise _too_large(limit)
        data += part
    return bytes(data)


def _too_large(limit: int) -> Refused:
    return Refused(413, "request_too_large", f"the body is larger than this server's limit of {limit} bytes")


def check_outline(data: bytes) -> None:
    """InvalidRequest for more nesting, arrays, objects or values than any real body has, before one is built.

    Building holds the interpreter, in whatever thread; this looks at the punctuation alone, 10 ms for a megabyte.
    """
    marks = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_MARKS)
    if (num_quotes := marks.count(b'"')) > MAX_VALUES:
        raise _bad(f"the body has {num_quotes // 2} strings; at most {MAX_VALUES // 2} are accepted")
    outside = b"".join(marks.split(b'"')[::2])
    num_containers, num_values = outside.count(b"[") + outside.count(b"{"), outside.count(b",")
    if num_containers > MAX_CONTAINERS or num_values > MAX_VALUES:
        raise _bad(
            f"the body has {num_containers} arrays and objects and about {num_values} values; "
            f"at most {MAX_CONTAINERS} and {MAX_VALUES} are accepted"
        )
    if max(accumulate(map(_STEPS.__getitem__, outside.replace(b",", b""))), default=0) > MAX_DEPTH:
        raise _bad(f"the body is nested deeper than {MAX_DEPTH}")


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object from bytes, strictly. InvalidRequest otherwise."""
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_json, parse_float=_number)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise _bad("the body has half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    except RecursionError:
        raise _bad(f"the body is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad(f"expected a JSON object, found {type(value).__name__}")
    _check_depth(value)
    return value


def validate(value: dict[str, Any], shape: type[Body]) -> Body:
    """`value` as a `shape`, or InvalidRequest about the field that is most specifically wrong."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise invalid(error, value) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise _bad(f"an object has {len(pairs)} keys; at most {MAX_KEYS} are accepted")
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0][:64]
        raise InvalidRequest(f"the key {twice!r} appears twice in one object", twice, "duplicate_key")
    return value


def _number(text: str) -> float | int:
    """JSON has one kind of number: 3.0 is the integer 3."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:32]} is too large")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _bad(f"the body is nested deeper than {MAX_DEPTH}")


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, None, "invalid_json")
