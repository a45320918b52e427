"""OpenTelemetry spans, one per request, if configured. The library is an optional extra and is imported only then.

Attributes follow the semantic conventions for HTTP and generative AI. No prompt, no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from starlette.types import Scope

from shoal.core.errors import BadConfig
from shoal.server.context import Record


class Tracing(Protocol):
    def span(self, record: Record, scope: Scope) -> AbstractContextManager[None]: ...


class NoTracing:
    def span(self, record: Record, scope: Scope) -> AbstractContextManager[None]:
        return nullcontext()


class OpenTelemetry:
    """Spans by `provider`, or the process's own. BadConfig where opentelemetry is not installed."""

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            raise BadConfig("otel", "opentelemetry is not installed; run: pip install 'shoal[otel]'") from None
        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER
        self._tracer = (provider or trace.get_tracer_provider()).get_tracer("shoal.server")

    @contextmanager
    def span(self, record: Record, scope: Scope) -> Iterator[None]:
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            record.method, context=self._extract(carrier), kind=self._kind, record_exception=False
        ) as span:
            try:
                yield
            finally:
                handler = scope.get("shoal.handler")
                span.update_name(f"{record.method} {handler}" if handler else record.method)
                span.set_attributes({key: value for key, value in _attributes(record).items() if value is not None})


def _attributes(record: Record) -> dict[str, Any]:
    return {
        "http.request.method": record.method,
        "http.response.status_code": record.status,
        "url.path": record.path,
        "gen_ai.request.model": record.model,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.server.time_to_first_token": record.ttft_s,
        "error.type": record.error,
        "shoal.request_id": record.request_id,
    }
