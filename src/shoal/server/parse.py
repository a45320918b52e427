"""Untrusted bytes become a typed value here, or an error that names the field. Faces an adversary.

Rules that stay true in this file:
- no more than `limit` bytes of a body are ever held;
- what JSON does not allow (NaN, Infinity, duplicate keys, lone surrogates) is refused, not repaired;
- the work is bounded by the size of the body: depth, keys per object and reported errors are limited.

What this does not protect against: many clients at once. That is the bounded queue's job.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
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
