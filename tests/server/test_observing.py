"""Metrics, spans, the stored answers, static files: the small parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from shoal.core.chunk import Chunk, ToolCallDelta, Usage
from shoal.core.errors import BadConfig, InvalidRequest
from shoal.core.request import Message
from shoal.server import ServerConfig, create_app
from shoal.server.api.response_output import ResponseMachine
from shoal.server.context import Record
from shoal.server.errors import Refused
from shoal.server.store import ResponseStore, Stored
from shoal.server.tracing import OpenTelemetry

Ask = Callable[..., httpx.Response]
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(ask: Ask, make_service: Callable[..., Any]) -> None:
    app = create_app(make_service())
    ask("POST", "/v1/chat/completions", app, json=BODY | {"stream": True})
    ask("POST", "/v1/chat/completions", app, json=BODY | {"n": 2})
    ask("GET", "/nowhere", app)
    response = ask("GET", "/metrics", app)
    assert response.headers["content-type"].startswith("text/plain; version=")
    found = samples(response.text)
    assert found["shoal:num_requests_running"] == 2
    assert found["shoal:num_requests_waiting"] == 1
    assert found["shoal:kv_cache_usage_perc"] == 0.25
    assert found["shoal:prompt_tokens_total"] == 30
    assert found["shoal:request_success_total stop tiny"] == 3
    assert found["shoal:time_to_first_token_seconds_count tiny"] == 2
    assert found["shoal:time_per_output_token_seconds_count tiny"] == 2
    assert found["shoal:e2e_request_latency_seconds_count tiny"] == 2
    assert found["shoal:request_generation_tokens_sum tiny"] == 6
    assert found["shoal:http_requests_total /v1/chat/completions POST 200"] == 2
    assert found["shoal:http_requests_total none GET 404"] == 1


def test_two_apps_count_apart(ask: Ask, make_service: Callable[..., Any]) -> None:
    one, other = create_app(make_service()), create_app(make_service())
    ask("POST", "/v1/chat/completions", one, json=BODY)
    assert "shoal:request_success_total stop tiny" in samples(ask("GET", "/metrics", one).text)
    assert "shoal:request_success_total stop tiny" not in samples(ask("GET", "/metrics", other).text)


def test_a_span_continues_the_clients_trace() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    record = Record("req_1", "POST", "/v1/chat/completions", 0.0)
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    scope = {"headers": [(b"traceparent", parent.encode())], "shoal.handler": "/v1/chat/completions"}
    with OpenTelemetry(provider).span(record, scope):
        record.model, record.status, record.prompt_tokens = "tiny", 200, 3
    (span,) = exporter.get_finished_spans()
    assert span.name == "POST /v1/chat/completions"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "ab" * 16
    attributes = dict(span.attributes or {})
    assert (attributes["gen_ai.request.model"], attributes["gen_ai.usage.input_tokens"]) == ("tiny", 3)


def test_tracing_without_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(BadConfig, match=r"pip install 'shoal\[otel\]'"):
        OpenTelemetry()


def test_an_app_with_spans_answers(ask: Ask) -> None:
    assert ask("GET", "/healthz", config=ServerConfig(otel=True)).status_code == 200


def stored(owner: bytes = b"", size: int = 1) -> Stored:
    return Stored(owner, {"id": "x"}, (Message("user", "x" * size),))


def test_the_store_forgets_the_oldest_and_counts_bytes() -> None:
    store = ResponseStore(2, 10**6)
    for name in "abc":
        store.put(name, stored())
    assert len(store) == 2
    with pytest.raises(InvalidRequest, match="forgotten"):
        store.previous("a", b"")
    store.put("big", stored(size=10**6))
    assert len(store) == 0
    store.put("d", stored(b"me"))
    with pytest.raises(Refused):
        store.remove("d", b"you")
    store.remove("d", b"me")
    assert len(store) == 0


def test_a_server_that_stores_nothing_says_so(ask: Ask) -> None:
    config, body = ServerConfig(max_stored_responses=0), {"model": "tiny", "input": "x"}
    assert ask("POST", "/v1/responses", config=config, json=body).json()["store"] is False
    assert ask("POST", "/v1/responses", config=config, json=body | {"store": True}).json()["error"]["param"] == "store"


def test_a_response_of_text_then_call_closes_each_item() -> None:
    machine = ResponseMachine({"id": "resp_1"})
    chunks = [
        Chunk(text="let me "), Chunk(text="see"), Chunk(tool_calls=(ToolCallDelta(0, "call_1", "f", "{"),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments="}"),)), Chunk(finish_reason="length", usage=Usage(1, 2)),
    ]  # fmt: skip
    events = [*machine.begin(), *(event for chunk in chunks for event in machine.take(chunk)), *machine.end()]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "incomplete",
    ]  # fmt: skip
    assert events[2]["item"]["content"] == []
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed", "incomplete"]
    assert machine.message().content == "let me see"
    assert machine.message().tool_calls[0].arguments == "{}"


def test_an_empty_answer_is_still_a_message() -> None:
    machine = ResponseMachine({"id": "resp_1"})
    list(machine.take(Chunk(finish_reason="stop", usage=Usage(1, 0))))
    list(machine.end())
    assert machine.response("completed")["output"][0]["content"][0]["text"] == ""


def test_static_files_have_types_and_a_strict_policy(
    ask: Ask, make_service: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("index.html", "a.js", "a.css", "a.svg", "deep/b.js", "secret.py", ".hidden.js"):
        (tmp_path / name).write_text(name)
    app = create_app(make_service(), console=tmp_path)
    types = {"/": "text/html", "/a.js": "text/javascript", "/a.css": "text/css", "/a.svg": "image/svg+xml"}
    for path, media_type in types.items():
        response = ask("GET", path, app)
        assert response.headers["content-type"].startswith(media_type)
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert ask("GET", "/deep/b.js", app).text == "deep/b.js"
    tag = ask("GET", "/a.js", app).headers["etag"]
    assert ask("GET", "/a.js", app, headers={"if-none-match": tag}).status_code == 304
    for path in ("/secret.py", "/.hidden.js", "/deep/../secret.py", "/%2e%2e/secret.py", "/deep"):
        assert ask("GET", path, app).status_code == 404, path


def test_an_empty_console_folder_still_answers(ask: Ask, make_service: Callable[..., Any], tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert ask("GET", "/", create_app(make_service(), console=folder)).status_code == 200
    assert ask("HEAD", "/", create_app(make_service(), console=tmp_path)).status_code == 200


def test_measured_costs_are_told_and_unmeasured_ones_are_absent(ask: Ask, make_service: Callable[..., Any]) -> None:
    from shoal.core.chunk import Measured
    from shoal.core.fakes import ScriptedGenerate

    usage = Usage(1, 1, ttft_s=0.5, energy_j=Measured(2.0, "rapl"))
    app = create_app(make_service(ScriptedGenerate(lambda request: [Chunk(finish_reason="stop", usage=usage)])))
    told = ask("POST", "/v1/chat/completions", app, json=BODY).json()["usage"]["shoal"]
    assert told == {"ttft_s": 0.5, "energy_j": {"value": 2.0, "source": "rapl", "uncertainty": None}}
    both = ask("POST", "/v1/completions", app, json={"model": "tiny", "prompt": ["a", "b"]}).json()["usage"]["shoal"]
    assert both["energy_j"]["value"] == 4.0
