"""What handlers are given: the service, the configuration, and a record of the request they are answering."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest

from shoal.core.clock import Clock
from shoal.core.service import Service
from shoal.server.config import ServerConfig
from shoal.server.metrics import Metrics
from shoal.server.store import Owners, ResponseStore


@dataclass(slots=True)
class Record:
    """What is known about one HTTP request; becomes its log line. Never holds a prompt or an answer."""

    request_id: str
    method: str
    path: str
    started: float
    status: int | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    owner: bytes = b""
    """Digest of the API key, so that one key's stored answers are not another's."""


@dataclass(frozen=True, slots=True)
class Context:
    service: Service
    config: ServerConfig
    metrics: Metrics
    store: ResponseStore
    clock: Clock
    owners: Owners = field(default_factory=Owners)


def record_of(request: HttpRequest) -> Record:
    record = request.scope["shoal.record"]
    assert isinstance(record, Record)  # put there by `access`, around everything
    return record


REQUEST_ID = re.compile(r"[!#-\[\]-~]{1,128}")
"""Visible ASCII without quote and backslash: safe in headers and logs, wide enough for proxies' own ids."""


def given_id(headers: Headers) -> str | None:
    return headers.get("x-request-id")


def has_good_id(headers: Headers) -> bool:
    given = given_id(headers)
    return given is None or REQUEST_ID.fullmatch(given) is not None


def fresh_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"
