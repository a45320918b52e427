"""What a server may be told. Nothing here is read from the environment or the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shoal.core.errors import BadConfig


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Configuration of one app. BadConfig for values that cannot work.

    api_keys              clients send one as `Authorization: Bearer <key>`; none: no key is needed.
    cors_origins          web origins that may call from a browser, "*" for any.
    allowed_hosts         names, besides IP addresses and localhost, this server answers to; "*" for any. Not
                          looked at when there are keys: a page that rebinds DNS does not know them.
    model_aliases         other names for served models: alias -> id.
    max_body_bytes        larger request bodies get 413, and are cut off there.
    max_prompt_chars      characters in one request's prompts; token ids count four each.
    max_choices           answers one HTTP request may ask for (`n` times the number of prompts or inputs).
    body_timeout_s        a body that takes longer to arrive gets 408.
    request_timeout_s     deadline put on every request; None: no limit.
    keepalive_s           a stream silent for this long gets an SSE comment.
    max_stored_responses  how many answers `/v1/responses` remembers; 0: `store` and `previous_response_id` refused.
    max_stored_bytes      and how many bytes of them, about.
    log_format            one line per request on the logger "shoal.access": JSON, text, or none.
    adapter_loading       clients may load adapters from folders of this machine and unload them.
    docs                  serve /openapi.json.
    otel                  one OpenTelemetry span per request, by the process's tracer provider.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    max_body_bytes: int = 8 * 2**20
    max_prompt_chars: int = 2_000_000
    max_choices: int = 128
    body_timeout_s: float = 30.0
    request_timeout_s: float | None = None
    keepalive_s: float = 15.0
    max_stored_responses: int = 256
    max_stored_bytes: int = 64 * 2**20
    log_format: Literal["json", "text", "off"] = "json"
    adapter_loading: bool = False
    docs: bool = True
    otel: bool = False

    def __post_init__(self) -> None:
        if any(not key or key != key.strip() or not key.isascii() for key in self.api_keys):
            raise BadConfig("api_keys", "expected ASCII keys without surrounding spaces, found an empty or other one")
        for name in ("max_body_bytes", "max_prompt_chars", "max_choices", "max_stored_bytes"):
            _check(name, getattr(self, name), at_least=1)
        _check("max_stored_responses", self.max_stored_responses, at_least=0)
        for name in ("body_timeout_s", "keepalive_s"):
            _check(name, getattr(self, name), at_least=1e-3)
        if self.request_timeout_s is not None:
            _check("request_timeout_s", self.request_timeout_s, at_least=1e-3)
        if self.log_format not in ("json", "text", "off"):
            raise BadConfig("log_format", f"expected json, text or off, found {self.log_format!r}")


def _check(key: str, value: float, at_least: float) -> None:
    if not (math.isfinite(value) and value >= at_least):
        raise BadConfig(key, f"expected a number of at least {at_least}, found {value}")
