"""Errors as bytes and back: the class at the caller is the class that was raised, so retry and blame are right there.

    ERROR = canonical CBOR {"c": code, "k": the code of its class, "t": text, "d": details}

Rules that stay true in this file:
- a code nobody knows is a LocalError of the other side: it blames nobody for what it cannot name;
- PeerFault and LinkClosed speak of the other side's view of its links; here they arrive as an InvalidRequest and a
  LocalError of the same code, so that nobody is banned, and no link is given up, because a peer said so;
- texts are cut at MAX_TEXT and details are numbers and short texts, none with control characters: whatever arrives is a
  ShoalError or PeerFault.
"""

from __future__ import annotations

import math
from typing import Any

from shoal.core.encoding import decode, encode
from shoal.core.errors import (
    BadConfig,
    BadWeights,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    LocalError,
    ModelNotFound,
    Overloaded,
    PeerFault,
    RemoteError,
    ShoalError,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unsupported,
)  # fmt: skip
from shoal.core.text import plain
from shoal.mesh.carrier import Bytes

MAX_TEXT = 2000
MAX_DETAIL = 300
MAX_FAILURE = 16 * 2**10

CLASSES: dict[str, tuple[type[ShoalError], dict[str, Any]]] = {
    "internal_error": (LocalError, {}),
    "rate_limit_exceeded": (Overloaded, {"retry_after_s": 1.0}),
    "service_unavailable": (Unavailable, {}),
    "deadline_exceeded": (DeadlineExceeded, {}),
    "bad_weights": (BadWeights, {"file": "", "field": "", "expected": "", "found": ""}),
    "bad_config": (BadConfig, {"key": ""}),
    "unsupported": (Unsupported, {}),
    "unreachable": (Unreachable, {"steps": ()}),
    "invalid_request_error": (RemoteError, {}),
    "invalid_value": (InvalidRequest, {"param": None}),
    "context_length_exceeded": (ContextTooLong, {"param": "messages"}),
    "model_not_found": (ModelNotFound, {"param": "model", "name": ""}),
    "invalid_api_key": (Unauthorized, {}),
    "peer_fault": (InvalidRequest, {"param": None}),
    "link_closed": (LocalError, {}),
    "stream_reset": (LocalError, {}),
}
"""code -> (class, its fields and what they are when nothing was said)."""


def failure_bytes(error: ShoalError) -> bytes:
    """The payload of ERROR."""
    kind = type(error).code
    fields = CLASSES[error.code if error.code in CLASSES else kind if kind in CLASSES else "internal_error"][1]
    details = {name: _detail(getattr(error, name, None)) for name in fields}
    said = {name: value for name, value in details.items() if value is not None}
    return encode({"c": error.code[:64], "k": kind[:64], "t": str(error)[:MAX_TEXT], "d": said})


def parse_failure(payload: Bytes) -> ShoalError:
    """The error in an ERROR, ready to be raised."""
    if len(payload) > MAX_FAILURE:
        raise PeerFault(f"expected an error of at most {MAX_FAILURE} bytes, found {len(payload)}")
    try:
        value = decode(bytes(payload))
    except RemoteError as error:
        raise PeerFault(f"expected an error's description, found: {error}") from error
    match value:
        case {"c": str(code), "k": str(kind), "t": str(text), "d": dict(details)}:
            return _revived(plain(code[:64]), kind, plain(text[:MAX_TEXT]), details)
    raise PeerFault("expected an error's description, found another value")


def _revived(code: str, kind: str, text: str, details: dict[Any, Any]) -> ShoalError:
    known = CLASSES.get(code) or CLASSES.get(kind)
    cls, fields = known or (LocalError, {})
    error = cls.__new__(cls)
    error.args = (text if known else f"{text} (an error this node does not know: {code})",)
    for name, default in fields.items():
        setattr(error, name, _typed(details.get(name), default))
    if known:
        error.code = code
    return error


def _typed(value: Any, default: Any) -> Any:
    """`value` where it has the type of `default`; nothing from outside gets a type its field does not have."""
    match default, value:
        case float(), float() | int() if not isinstance(value, bool) and math.isfinite(value):
            return min(max(float(value), 0.001), 3600.0)
        case ((str() | None), str()):
            return plain(value[:MAX_DETAIL])
        case tuple(), list():
            return tuple(plain(str(item)[:MAX_DETAIL]) for item in value[:32])
    return default


def _detail(value: object) -> Any:
    match value:
        case str():
            return value[:MAX_DETAIL]
        case float() if math.isfinite(value):
            return value
        case tuple():
            return [str(item)[:MAX_DETAIL] for item in value[:32]]
    return None
