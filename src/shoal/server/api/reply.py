"""How answers leave: JSON bodies and JSON events."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.responses import Response

from shoal.core.errors import ShoalError
from shoal.server import sse
from shoal.server.errors import body_of
from shoal.server.wire.base import Answer


def json_response(answer: Answer, status: int = 200) -> Response:
    return Response(answer.json_bytes(), status, media_type="application/json")


def json_event(value: dict[str, Any], name: str | None = None) -> bytes:
    """NaN would be no JSON: raises ValueError."""
    return sse.event(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(), name)


def error_event(error: Exception) -> bytes:
    """An error in mid-stream, as OpenAI and vLLM send it. No [DONE] follows."""
    log_bug(error)
    return json_event(body_of(error))


def log_bug(error: Exception) -> None:
    if not isinstance(error, ShoalError):
        logging.getLogger("shoal.server").error("a request failed by a bug", exc_info=error)
