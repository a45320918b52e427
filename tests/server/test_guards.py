"""Keys, hosts, origins, request ids, log lines: what stands around every handler."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shoal.core.errors import BadConfig
from shoal.core.fakes import ScriptedGenerate, words
from shoal.server import ServerConfig, create_app
from shoal.server.hosts import is_allowed_host

Ask = Callable[..., httpx.Response]
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "TOP SECRET"}]}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer ", "Bearer wrong", "Basic key-1", "key-1", "Bearer key-1 x", "Bearer é"]
)
def test_a_wrong_key_is_refused(ask: Ask, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    response = ask("POST", CHAT, config=ServerConfig(api_keys=("key-1", "key-2")), json=BODY, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", ["Bearer key-1", "bearer key-2"])
def test_a_right_key_is_taken(ask: Ask, given: str) -> None:
    config = ServerConfig(api_keys=("key-1", "key-2"))
    assert ask("POST", CHAT, config=config, json=BODY, headers={"authorization": given}).status_code == 200


def test_which_paths_need_a_key(ask: Ask) -> None:
    config = ServerConfig(api_keys=("key-1",))
    for path, status in {
        "/": 200,
        "/healthz": 200,
        "/readyz": 200,
        "/metrics": 401,
        "/v1/stats": 401,
        "/v1/x": 401,
    }.items():
        assert ask("GET", path, config=config).status_code == status, path


def test_one_keys_stored_answers_are_not_anothers(ask: Ask, make_service: Callable[..., Any]) -> None:
    app = create_app(make_service(), ServerConfig(api_keys=("a", "b")))
    mine, other = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
    made = ask("POST", "/v1/responses", app, json={"model": "tiny", "input": "x"}, headers=mine).json()
    assert ask("GET", f"/v1/responses/{made['id']}", app, headers=mine).status_code == 200
    assert ask("GET", f"/v1/responses/{made['id']}", app, headers=other).status_code == 404
    assert ask("DELETE", f"/v1/responses/{made['id']}", app, headers=other).status_code == 404


@pytest.mark.parametrize(
    ("host", "is_fine"),
    [
        ("localhost", True), ("localhost:8642", True), ("LOCALHOST.", True), ("127.0.0.1:80", True), ("[::1]:80", True),
        ("192.168.1.7", True), ("a.localhost", True), ("shoal.lan:1", True), ("evil.example", False), ("", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("user@evil.example", False),
        ("[::1", False), ("evil.example#localhost", False), ("xlocalhost", False),
    ],
)  # fmt: skip
def test_hosts(host: str, is_fine: bool) -> None:
    assert is_allowed_host(host, ("shoal.lan",)) is is_fine
    assert is_allowed_host(host, ("*",)) is (is_fine or host not in ("[::1",))


def test_a_rebound_name_is_refused_unless_there_are_keys(ask: Ask) -> None:
    headers = {"host": "evil.example"}
    assert ask("GET", "/v1/models", headers=headers).json()["error"]["code"] == "host_not_allowed"
    assert ask("GET", "/", headers=headers).status_code == 403
    config = ServerConfig(api_keys=("k",))
    assert ask("GET", "/v1/models", config=config, headers=headers | {"authorization": "Bearer k"}).status_code == 200
    assert (
        ask("GET", "/v1/models", config=ServerConfig(allowed_hosts=("evil.example",)), headers=headers).status_code
        == 200
    )


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200), ("http://evil.example", 403), ("null", 403), ("http://localhost:1", 403),
        ("http://friend.example", 200), ("http://[", 403), ("", 403),
    ],
)  # fmt: skip
def test_pages_of_other_origins_are_refused(ask: Ask, origin: str, status: int) -> None:
    config = ServerConfig(cors_origins=("http://friend.example",))
    assert ask("POST", CHAT, config=config, json=BODY, headers={"origin": origin}).status_code == status


def test_cors(ask: Ask) -> None:
    config = ServerConfig(cors_origins=("http://friend.example",), api_keys=("k",))
    asked = {"origin": "http://friend.example", "access-control-request-method": "POST",
             "access-control-request-headers": "authorization,content-type"}  # fmt: skip
    preflight = ask("OPTIONS", CHAT, config=config, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://friend.example"
    refused = ask("POST", CHAT, config=config, json=BODY, headers={"origin": "http://friend.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://friend.example"  # or the page cannot read why
    assert ask("GET", "/healthz", config=config, headers=asked).headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in ask("GET", "/healthz", headers={"origin": "http://localhost"}).headers


def test_request_ids(ask: Ask) -> None:
    assert ask("GET", "/healthz", headers={"x-request-id": "Root=1-2;a"}).headers["x-request-id"] == "Root=1-2;a"
    assert ask("GET", "/healthz").headers["x-request-id"].startswith("req_")
    for bad in ("a b", "", "x" * 129, 'a"b'):
        response = ask("GET", "/healthz", headers={"x-request-id": bad})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "x-request-id")
        assert response.headers["x-request-id"].startswith("req_")


def test_unknown_paths_and_methods_are_json_errors(ask: Ask) -> None:
    assert ask("GET", "/nowhere").json()["error"]["code"] == "not_found"
    assert ask("POST", "/nowhere", json={}).status_code == 404
    assert ask("GET", CHAT).json()["error"]["code"] == "method_not_allowed"
    assert ask("POST", "/", json={}).status_code == 405
    assert ask("GET", "/healthz/").status_code == 404
    assert ask("GET", "/v1/models?limit=3").json()["error"]["param"] == "limit"
    assert ask("GET", "/openapi.json", config=ServerConfig(docs=False)).status_code == 404


def test_one_line_per_request_without_the_prompt(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shoal.access")
    more = {"user": "u\n1", "metadata": {"team": "a"}, "stream": True}
    ask("POST", CHAT, json=BODY | more, headers={"x-request-id": "mine"})
    ask("GET", "/nowhere%0Aforged")
    lines = [record.getMessage() for record in caplog.records if record.name == "shoal.access"]
    assert len(lines) == 2
    assert all("\n" not in line and "SECRET" not in line for line in lines)
    first, second = map(json.loads, lines)
    assert {
        "id": "mine",
        "status": 200,
        "model": "tiny",
        "prompt_tokens": 3,
        "completion_tokens": 2,
    }.items() <= first.items()
    assert (first["user"], first["metadata"], first["finish_reasons"]) == ("u\n1", {"team": "a"}, ["stop"])
    assert first["ttft_s"] <= first["duration_s"]
    assert (second["status"], second["error"]) == (404, "not_found")


def test_text_lines_cannot_be_forged(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shoal.access")
    ask("GET", "/a%0Ab", config=ServerConfig(log_format="text"))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "shoal.access"]
    assert line.startswith("GET /a\\nb 404 ")
    caplog.clear()
    ask("GET", "/healthz", config=ServerConfig(log_format="off"))
    assert caplog.records == []


def test_a_bug_is_logged_whole_and_told_briefly(
    ask: Ask, make_service: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_service(ScriptedGenerate(lambda request: [KeyError("inner detail")])))
    response = ask("POST", CHAT, app, json=BODY)
    assert response.status_code == 500
    assert "inner detail" not in response.text
    assert any(record.exc_info for record in caplog.records)


def test_an_answer_that_breaks_the_rules_is_an_error(ask: Ask, make_service: Callable[..., Any]) -> None:
    """Without usage the stream has no end; half an answer must not look whole."""
    app = create_app(make_service(ScriptedGenerate(lambda request: words("a")(request)[:1])))
    assert "broke off" in ask("POST", CHAT, app, json=BODY).json()["error"]["message"]


@pytest.mark.parametrize(
    "bad",
    [
        {"api_keys": ("",)}, {"api_keys": (" a",)}, {"api_keys": ("é",)}, {"max_body_bytes": 0}, {"keepalive_s": 0},
        {"log_format": "xml"}, {"max_choices": -1}, {"request_timeout_s": float("nan")}, {"max_stored_responses": -1},
    ],
)  # fmt: skip
def test_configuration_that_cannot_work_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(bad))):
        ServerConfig(**bad)
