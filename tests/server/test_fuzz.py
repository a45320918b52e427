"""Malformed bodies: always a JSON error of OpenAI's shape with a 4xx, never a 500, never a hang."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shoal.core.fakes import ScriptedGenerate, words
from shoal.server import ServerConfig, create_app

GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "n": 1,
        "temperature": 0.5, "stop": ["x"], "logit_bias": {"1": 2.0}, "seed": 3, "stream": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "none",
    },
    "/v1/completions": {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 4, "logprobs": 2, "echo": True},
    "/v1/responses": {
        "model": "tiny", "input": [{"role": "user", "content": "hi"}], "metadata": {"a": "b"},
        "text": {"format": {"type": "text"}}, "tools": [{"type": "function", "name": "f", "parameters": {}}],
    },
    "/v1/embeddings": {"model": "tiny", "input": [[1, 2], [3]], "encoding_format": "float"},
    "/v1/tokenize": {"model": "tiny", "prompt": "a"},
    "/v1/detokenize": {"model": "tiny", "tokens": [2, 3]},
    "/v1/load_lora_adapter": {"lora_name": "extra", "lora_path": "/nowhere"},
    "/v1/unload_lora_adapter": {"lora_name": "tiny-pirate"},
}  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), 10**400, 1e300, -0.0, "", "x" * 5000, "\x00", "\u202e", [], {},
    [[]], [None], [True], ["", ""], {"": ""}, {"type": "text"}, {"type": None}, [[[[1]]]], [1, "a", [2]], [10**20],
    {"type": "image_url", "image_url": {"url": "http://x"}}, {"__proto__": 1}, [{}] * 50, list(range(3000)),
]  # fmt: skip

RAW: list[bytes] = [
    b"", b"null", b"[]", b'"x"', b"1", b"{", b'{"model"', b'{"model":"tiny"', b"{}", b"{'model': 1}", b"\xff\xfe{}",
    b'{"model":"\xc3("}', b'{"model":"\\ud800"}', b'{"model":NaN}', b'{"model":"tiny","n":Infinity}',
    b'{"model":"tiny","temperature":1e999}', b'{"model":"tiny","model":"tiny"}', b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"model":' + b"[" * 200 + b"]" * 200 + b"}", b'{"n":' + b"9" * 5000 + b"}",
    b'{"prompt":[' + b"1," * 200_000 + b'"a"],"model":"tiny"}',
    b"{" + b",".join(b'"k%d":1' % i for i in range(50_000)) + b"}",
    b'{"messages":[' + b",".join([b"{}"] * 50_000) + b"]}", b"\xef\xbb\xbf{}", b"\x00" * 1000, b"{}garbage",
    b'{"model":"tiny","input":[{"role":"user","content":[' + b",".join([b'{"type":1}'] * 20_000) + b"]}]}",
]  # fmt: skip


def mutated(value: Any, rng: random.Random) -> Any:
    """`value` with one thing in it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.75:
        key = rng.choice(list(value))
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        position = rng.randrange(len(value))
        return [*value[:position], mutated(value[position], rng), *value[position + 1 :]]
    if isinstance(value, dict) and rng.random() < 0.5:
        return value | {rng.choice(["foo", "", "functions", "é"]): rng.choice(VALUES)}
    return rng.choice(VALUES)


def check(response: httpx.Response, sent: str) -> None:
    context = f"{sent[:300]} -> {response.status_code} {response.text[:300]}"
    assert response.status_code == 200 or 400 <= response.status_code < 500, context
    if response.status_code != 200:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, context
        assert len(error["message"]) < 2000, context
        assert isinstance(error["code"], str), context


def run_all(app: Any, cases: list[tuple[str, bytes, str]]) -> list[int]:
    async def go() -> list[int]:
        statuses = []
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost"
        ) as client:
            for path, data, media_type in cases:
                async with asyncio.timeout(5):
                    response = await client.post(path, content=data, headers={"content-type": media_type})
                check(response, f"{path} {data[:300]!r}")
                statuses.append(response.status_code)
        return statuses

    return asyncio.run(go())


@pytest.fixture
def app(make_service: Callable[..., Any]) -> Any:
    config = ServerConfig(adapter_loading=True, log_format="off")
    return create_app(make_service(ScriptedGenerate(words("Hel", "lo"))), config)


def test_bodies_that_are_no_json_object(app: Any) -> None:
    statuses = run_all(app, [(path, data, "application/json") for path in GOOD for data in RAW])
    assert set(statuses) == {400}


def test_wrong_content_types(app: Any) -> None:
    kinds = [
        "text/plain",
        "",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "multipart/form-data; boundary=x",
    ]
    data = json.dumps(GOOD["/v1/completions"]).encode()
    assert set(run_all(app, [("/v1/completions", data, kind) for kind in kinds])) == {415}
    assert run_all(app, [("/v1/completions", data, "Application/JSON; charset=utf-8")]) == [200]


def test_good_bodies_are_good(app: Any) -> None:
    """Else the mutations below would test nothing."""
    cases = [(path, json.dumps(body).encode(), "application/json") for path, body in GOOD.items()]
    assert run_all(app, cases) == [200] * len(cases)


@pytest.mark.parametrize("path", GOOD)
def test_mutated_bodies(app: Any, path: str) -> None:
    rng = random.Random(f"shoal {path}")
    cases = [(path, json.dumps(mutated(GOOD[path], rng)).encode(), "application/json") for _ in range(400)]
    statuses = run_all(app, cases)
    assert 400 in statuses


@pytest.mark.parametrize("path", GOOD)
def test_damaged_bytes(app: Any, path: str) -> None:
    rng = random.Random(f"bytes {path}")
    cases = []
    for _ in range(150):
        data = bytearray(json.dumps(GOOD[path]).encode())
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cases.append((path, bytes(data[: rng.randrange(len(data)) or None]), "application/json"))
    run_all(app, cases)
