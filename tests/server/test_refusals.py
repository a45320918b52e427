"""What cannot be honoured is refused by name; what is neutral or null is accepted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Constraint
from shoal.server import ServerConfig, create_app, parse

Ask = Callable[..., httpx.Response]
JSON = {"content-type": "application/json"}
CHAT, TEXT, ITEMS = "/v1/chat/completions", "/v1/completions", "/v1/responses"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
    TEXT: {"model": "tiny", "prompt": "hi"},
    ITEMS: {"model": "tiny", "input": "hi"},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def messages(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}, message]}


@pytest.mark.parametrize(
    ("path", "change", "param", "says"),
    [
        (CHAT, {"functions": []}, "functions", "`tools`"),
        (CHAT, {"function_call": "auto"}, "function_call", "`tool_choice`"),
        (CHAT, {"reasoning_effort": "low"}, "reasoning_effort", "not supported"),
        (CHAT, {"tempreature": 1}, "tempreature", "unknown parameter"),
        (CHAT, {"store": True}, "store", "False"),
        (CHAT, {"service_tier": "flex"}, "service_tier", "'auto' or 'default'"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities", "at most 1"),
        (CHAT, {"n": 0}, "n", "greater than or equal to 1"),
        (CHAT, {"n": True}, "n", "valid integer"),
        (CHAT, {"n": 129}, "n", "128"),
        (CHAT, {"temperature": 2.1}, "temperature", "less than or equal to 2"),
        (CHAT, {"top_p": 0}, "top_p", "greater than 0"),
        (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1", "100"),
        (CHAT, {"logit_bias": {"a": 1}}, "logit_bias.a", "pattern"),
        (CHAT, {"stop": ["x"] * 17}, "stop", "at most 16"),
        (CHAT, {"stop": ""}, "stop", "at least 1"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", "logprobs"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        (CHAT, {"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation", "False"),
        (CHAT, {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "different"),
        (CHAT, {"max_tokens": 3, "min_tokens": 4}, "min_tokens", "more than 3"),
        (CHAT, {"tool_choice": "auto"}, "tool_choice", "needs tools"),
        (CHAT, {"parallel_tool_calls": True}, "parallel_tool_calls", "needs tools"),
        (CHAT, {"tools": [TOOL, TOOL]}, "tools", "two tools"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
        (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "'g'"),
        (CHAT, {"tools": [TOOL], "tool_choice": "required", "response_format": SCHEMA}, "tool_choice", "exclude"),
        (CHAT, {"response_format": SCHEMA, "guided_regex": "a"}, "guided_regex", "exclude"),
        (CHAT, {"response_format": {"type": "xml"}}, "response_format", "xml"),
        (CHAT, {"structured_outputs": {}}, "structured_outputs", "expected one of"),
        (CHAT, messages(role="user"), "messages[1].content", "needs content"),
        (CHAT, messages(role="function", content="a"), "messages[1].role", "'function'"),
        (CHAT, messages(role="tool", content="a"), "messages[1].tool_call_id", "which call"),
        (CHAT, messages(role="user", content="a", tool_call_id="x"), "messages[1].tool_call_id", "only tool"),
        (CHAT, messages(role="user", content=[{"type": "image_url", "image_url": {"url": "x"}}]),
         "messages[1].content[0].type", "'image_url'"),
        (CHAT, {"messages": []}, "messages", "at least 1"),
        (TEXT, {"best_of": 2}, "best_of", "1"),
        (TEXT, {"suffix": "x"}, "suffix", "not offered"),
        (TEXT, {"prompt": ""}, "prompt", "at least 1"),
        (TEXT, {"prompt": ["a"] * 129}, "n", "129 answers"),
        (TEXT, {"prompt": [1, "a"]}, "prompt[1]", "expected a valid integer, found 'a'"),
        (TEXT, {"prompt": ["a", 1]}, "prompt[1]", "expected a valid string, found 1"),
        (TEXT, {"prompt": [-1]}, "prompt[0]", "expected a number greater than or equal to 0, found -1"),
        (TEXT, {"prompt": [True]}, "prompt[0]", "a valid string or a valid integer or an array, found true"),
        (TEXT, {"prompt": 5}, "prompt", "expected a valid string or an array, found 5"),
        (TEXT, {"prompt": ["a"] * 3000}, "prompt", "expected at most 2048 items, found an array of 3000"),
        (CHAT, {"stop": ["x"] * 17}, "stop", "expected at most 16 items, found an array of 17"),
        (CHAT, {"stop": 5}, "stop", "expected a valid string or an array, found 5"),
        (CHAT, messages(role="user", content=5), "messages[1].content", "a valid string or an array, found 5"),
        (CHAT, {"messages": [5]}, "messages[0]", "expected an object, found 5"),
        (CHAT, {"guided_json": 5}, "guided_json", "expected an object or a valid string, found 5"),
        (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": 5}}},
         "tool_choice.function.name", "valid string, found 5"),
        (ITEMS, {"input": [{"role": "user", "content": 5}]}, "input[0].content", "a valid string or an array, found 5"),
        (ITEMS, {"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "missing"),
        (ITEMS, {"input": [{"type": "reasoning"}]}, "input[0]", "'function_call_output', and not 'reasoning'"),
        (TEXT, {"logprobs": 21}, "logprobs", "20"),
        (ITEMS, {"background": True}, "background", "False"),
        (ITEMS, {"truncation": "auto"}, "truncation", "'disabled'"),
        (ITEMS, {"conversation": "c"}, "conversation", "previous_response_id"),
        (ITEMS, {"reasoning": {"effort": "low"}}, "reasoning", "not supported"),
        (ITEMS, {"previous_response_id": "resp_0"}, "previous_response_id", "forgotten"),
        (ITEMS, {"include": ["reasoning.encrypted_content"]}, "include[0]", "logprobs"),
        (ITEMS, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type", "input_text"),
    ],
)  # fmt: skip
def test_refused_by_name(ask: Ask, path: str, change: dict[str, Any], param: str, says: str) -> None:
    response = ask("POST", path, json=GOOD[path] | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert says in error["message"]


@pytest.mark.parametrize("path", GOOD)
def test_null_is_absent(ask: Ask, path: str) -> None:
    names = ["temperature", "stop", "logit_bias", "stream", "user", "metadata", "stream_options", "top_k", "seed"]
    assert ask("POST", path, json=GOOD[path] | dict.fromkeys(names)).status_code == 200


def test_neutral_values_are_accepted(ask: Ask) -> None:
    neutral = {"store": False, "service_tier": "default", "modalities": ["text"], "verbosity": "medium", "n": 1.0}
    assert ask("POST", CHAT, json=GOOD[CHAT] | neutral | {"response_format": {"type": "text"}}).status_code == 200
    assert ask("POST", TEXT, json=GOOD[TEXT] | {"best_of": 1, "service_tier": "auto"}).status_code == 200
    assert ask("POST", ITEMS, json=GOOD[ITEMS] | {"background": False, "truncation": "disabled"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json_schema", '{"type":"object"}')),
        ({"response_format": SCHEMA}, Constraint("json_schema", '{"type": "object"}')),
        ({"guided_json": {"a": 1}}, Constraint("json_schema", '{"a": 1}')),
        ({"guided_regex": "a+"}, Constraint("regex", "a+")),
        ({"guided_grammar": "start: A"}, Constraint("lark", "start: A")),
        ({"guided_choice": ["yes", 'n"o']}, Constraint("lark", 'start: "yes" | "n\\"o"')),
        ({"structured_outputs": {"regex": "b"}}, Constraint("regex", "b")),
        ({"structured_outputs": {"json": {"a": 1}}}, Constraint("json_schema", '{"a": 1}')),
        ({"structured_outputs": {"json_object": True}}, Constraint("json_schema", '{"type":"object"}')),
    ],
)
def test_constraints(ask: Ask, make_service: Callable[..., Any], change: dict[str, Any], expected: Any) -> None:
    generate = ScriptedGenerate(words("a"))
    assert ask("POST", CHAT, create_app(make_service(generate)), json=GOOD[CHAT] | change).status_code == 200
    assert generate.seen[0].constraint == expected


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        (CHAT, {"response_format": SCHEMA}, "response_format"),
        (CHAT, {"guided_regex": "a+"}, "guided_regex"),
        (TEXT, {"guided_choice": ["a"]}, "guided_choice"),
        (TEXT, {"structured_outputs": {"grammar": "start: A"}}, "structured_outputs.grammar"),
        (ITEMS, {"text": {"format": {"type": "json_object"}}}, "text.format"),
    ],
)
def test_a_constraint_knows_the_parameter_it_came_in(
    ask: Ask, make_service: Callable[..., Any], path: str, change: dict[str, Any], param: str
) -> None:
    """The engine, which finds out that no grammar can be made of it, once blamed response_format for all of them."""
    generate = ScriptedGenerate(words("a"))
    assert ask("POST", path, create_app(make_service(generate)), json=GOOD[path] | change).status_code == 200
    assert generate.seen[0].constraint.param == param


def test_limits_of_size(ask: Ask) -> None:
    config = ServerConfig(max_body_bytes=300, max_prompt_chars=100)
    long = GOOD[TEXT] | {"prompt": "x" * 101}
    assert ask("POST", TEXT, config=config, json=long).json()["error"]["code"] == "string_too_long"
    assert ask("POST", TEXT, config=config, json=GOOD[TEXT] | {"prompt": [1] * 26}).status_code == 400
    assert ask("POST", TEXT, config=config, json=GOOD[TEXT] | {"prompt": [1] * 25}).status_code == 200
    large = ask("POST", TEXT, config=config, json=GOOD[TEXT] | {"prompt": "x" * 300})
    assert (large.status_code, large.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ("[" + "[],\n" * 200_000 + "[]]", "200003 arrays and objects"),
        ("[" + "{}," * 200_000 + "{}]", "200003 arrays and objects"),
        ("[" + "1," * 1_100_000 + "1]", "values"),
        ('""' * 600_000, "600003 strings"),
        ("[" * 5_000 + '"' + "x" * 30_000 + '"' + "]" * 5_000, "nested deeper than 64"),
    ],
)
def test_a_body_of_more_structure_than_any_real_one_is_refused_before_it_is_built(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, inner: str, says: str
) -> None:
    """Eight megabytes of empty arrays took seconds in which the event loop did nothing else."""
    monkeypatch.setattr(parse, "parse_json", lambda data: pytest.fail("built"))
    response = ask("POST", TEXT, content=f'{{"model": "tiny", "prompt": {inner}}}', headers=JSON)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


def test_a_large_body_is_parsed_beside_the_event_loop_and_its_strings_are_no_structure(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, parse_json = list[str](), parse.parse_json

    def noted(data: bytes) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return parse_json(data)

    monkeypatch.setattr(parse, "parse_json", noted)
    text = '[{,"\\' * 150_000
    for prompt in ("short", text, text + '"'):
        assert ask("POST", TEXT, json=GOOD[TEXT] | {"prompt": prompt}).status_code == 200
    assert threads[0] == "MainThread"
    assert "MainThread" not in threads[1:]


def test_a_body_without_a_length_is_cut_off_at_the_limit(ask: Ask) -> None:
    """Only as much is read as is needed to see that it is too much."""
    sent = []

    async def parts() -> Any:
        for _ in range(1000):
            sent.append(1)
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    response = ask("POST", TEXT, config=ServerConfig(max_body_bytes=5000), content=parts(), headers=headers)
    assert response.status_code == 413
    assert len(sent) <= 7


def test_a_body_that_never_ends_gets_408(ask: Ask) -> None:
    async def parts() -> Any:
        import asyncio

        yield b"{"
        await asyncio.Event().wait()

    headers = {"content-type": "application/json"}
    response = ask("POST", TEXT, config=ServerConfig(body_timeout_s=0.01), content=parts(), headers=headers)
    assert response.status_code == 408


def test_aliases_adapters_and_capabilities(ask: Ask, make_service: Callable[..., Any]) -> None:
    generate = ScriptedGenerate(words("a"))
    app = create_app(make_service(generate), ServerConfig(model_aliases={"gpt-4o": "tiny-pirate"}))
    assert ask("POST", CHAT, app, json=GOOD[CHAT] | {"model": "gpt-4o"}).json()["model"] == "tiny-pirate"
    assert (generate.seen[0].model, generate.seen[0].adapter) == ("tiny", "tiny-pirate")
    assert ask("GET", "/v1/models/gpt-4o", app).json()["id"] == "tiny-pirate"
    refused = ask("POST", "/v1/embeddings", app, json={"model": "gpt-4o", "input": "a"})
    assert refused.json()["error"]["code"] == "model_not_capable"


def test_nothing_is_taken_before_the_service_is_ready(ask: Ask, make_service: Callable[..., Any]) -> None:
    app = create_app(make_service(not_ready=lambda: "still loading"))
    for response in (ask("POST", CHAT, app, json=GOOD[CHAT]), ask("GET", "/readyz", app)):
        assert (response.status_code, response.json()["error"]["message"]) == (503, "still loading")
        assert response.headers["retry-after"] == "2"
    assert ask("GET", "/healthz", app).json() == {"status": "ok"}


def test_tokens_go_both_ways(ask: Ask) -> None:
    there = ask("POST", "/v1/tokenize", json={"model": "tiny", "prompt": "abc"}).json()
    assert there == {"count": 4, "max_model_len": 64, "tokens": [0, 2, 3, 4]}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "abc"}]}
    assert ask("POST", "/v1/tokenize", json=chat).json()["tokens"] == [2, 3, 4]
    assert ask("POST", "/v1/detokenize", json={"model": "tiny", "tokens": [2, 3, 4]}).json() == {"prompt": "abc"}


def test_adapters_come_and_go_where_allowed(ask: Ask, make_service: Callable[..., Any]) -> None:
    app = create_app(make_service(), ServerConfig(adapter_loading=True))
    body = {"lora_name": "extra", "lora_path": "/adapters/extra"}
    assert "added" in ask("POST", "/v1/load_lora_adapter", app, json=body).text
    assert ask("POST", "/v1/load_lora_adapter", app, json=body).json()["error"]["param"] == "lora_name"
    assert ask("GET", "/v1/models/extra", app).json()["parent"] == "tiny"
    assert "removed" in ask("POST", "/v1/unload_lora_adapter", app, json={"lora_name": "extra"}).text
    assert ask("POST", "/v1/unload_lora_adapter", app, json={"lora_name": "extra"}).status_code == 404
    assert ask("POST", "/v1/unload_lora_adapter", app, json={"lora_name": "tiny"}).status_code == 400
    assert ask("POST", "/v1/load_lora_adapter", json=body).json()["error"]["code"] == "adapter_loading_disabled"


def test_a_deadline_is_put_on_requests(ask: Ask, make_service: Callable[..., Any]) -> None:
    generate = ScriptedGenerate(words("a"))
    app = create_app(make_service(generate), ServerConfig(request_timeout_s=60))
    ask("POST", CHAT, app, json=GOOD[CHAT])
    assert generate.seen[0].deadline is not None
