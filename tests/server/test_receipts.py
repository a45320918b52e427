"""Receipts over HTTP: in every kind of answer, shown again to whoever asked, and verified for anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from receipt_makers import engine, sealer

from shoal.core.service import Service
from shoal.node.receipts import Signing
from shoal.server import ServerConfig, create_app
from shoal.trust.file import Shown, from_json, parse_answers
from shoal.trust.inspect import inspect

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "receipt": True}
TEXT = "".join(f"w{token} " for token in range(100, 169)) + "end"
Ask = Callable[..., httpx.Response]


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    return Signing(sealer(tmp_path))


@pytest.fixture
def app(make_service: Callable[..., Service], signing: Signing) -> Any:
    return create_app(signing.service(make_service(engine)))


def events(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def read(value: Any) -> list[Shown]:
    return parse_answers(json.dumps(value).encode())


def test_every_kind_of_answer_carries_its_receipt(ask: Ask, app: Any) -> None:
    bodies = [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"model": "tiny", "prompt": "hi", "receipt": True}),
        ("/v1/responses", {"model": "tiny", "input": "hi", "receipt": True, "store": False}),
    ]
    for number, (path, body) in enumerate(bodies):
        answer = ask("POST", path, app, json=body).json()
        signed = from_json(answer["receipt"])
        assert inspect(signed).is_valid
        assert signed.receipt.sequence == 2 * number + 1
        assert signed.opening is not None
        assert signed.opening.outputs[0].text == TEXT
        assert [shown.problems for shown in read(answer)] == [()]
        for lie in ({"model": "gpt-4"}, {"id": "other"}, {"usage": {"total_tokens": 1}}):
            assert all(shown.problems for shown in read({**answer, **lie}))
        streamed = events(ask("POST", path, app, json={**body, "stream": True}))
        last = streamed[-1].get("response", streamed[-1])
        assert inspect(from_json(last["receipt"])).is_valid
        assert [shown.problems for shown in read(streamed[-1])] == [()]
        shown_again = ask("GET", f"/v1/receipts/{last['id']}", app).json()
        assert [shown.problems for shown in read(shown_again)] == [()]
        assert sum("receipt" in json.dumps(event) for event in streamed) == 1
        assert all(event["choices"] for event in streamed if "choices" in event)  # clients read choices[0]


def test_it_is_found_by_the_answers_own_id(ask: Ask, app: Any) -> None:
    answer = ask("POST", "/v1/completions", app, json={"model": "tiny", "prompt": "hi", "receipt": True}).json()
    assert ask("GET", f"/v1/receipts/{answer['id']}", app).json()["opening"] == answer["receipt"]["opening"]


def test_an_answer_without_one_is_as_ever(ask: Ask, app: Any) -> None:
    body = {**CHAT, "receipt": False}
    assert "receipt" not in ask("POST", "/v1/chat/completions", app, json=body).json()
    assert "receipt" not in ask("POST", "/v1/chat/completions", app, json={**body, "stream": True}).text


def test_several_prompts_in_one_request_have_no_one_receipt(ask: Ask, app: Any) -> None:
    response = ask("POST", "/v1/completions", app, json={"model": "tiny", "prompt": ["a", "b"], "receipt": True})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "receipt")


def test_it_is_shown_again_whole_to_whoever_asked_only(
    ask: Ask, make_service: Callable[..., Service], signing: Signing
) -> None:
    app = create_app(signing.service(make_service(engine)), ServerConfig(api_keys=("mine", "yours")))
    mine, yours = ({"authorization": f"Bearer {key}"} for key in ("mine", "yours"))
    answer = ask("POST", "/v1/chat/completions", app, json=CHAT, headers=mine).json()
    path = f"/v1/receipts/{answer['id']}"
    shown = ask("GET", path, app, headers=mine).json()
    assert {"receipt": shown["receipt"], "opening": shown["opening"]} == answer["receipt"]
    assert shown["valid"]
    other = ask("GET", path, app, headers=yours).json()
    assert (other["receipt"], other["opening"]) == (shown["receipt"], None)
    assert ask("GET", path, app).status_code == 401
    assert ask("GET", "/v1/receipts/1", app, headers=yours).json()["sequence"] == 1
    assert ask("GET", "/v1/receipts/nobody", app, headers=mine).status_code == 404


def test_anybody_may_have_receipts_verified(ask: Ask, app: Any) -> None:
    answers = [ask("POST", "/v1/chat/completions", app, json=CHAT).json()["receipt"] for _ in range(3)]
    one = ask("POST", "/v1/verify", app, json=answers[0]).json()
    assert (one["valid"], one["chain"]) == (True, [])
    assert ask("POST", "/v1/verify", app, json={"receipts": answers}).json()["valid"]
    gap = ask("POST", "/v1/verify", app, json={"receipts": [answers[0], answers[2]]}).json()
    assert (gap["valid"], gap["chain"]) == (False, ["gap: number 2 is missing"])
    mixed = ask(
        "POST", "/v1/verify", app, json={"receipt": answers[0]["receipt"], "opening": answers[1]["opening"]}
    ).json()
    assert not mixed["valid"]
    assert any("not the one that was signed" in problem for problem in mixed["receipts"][0]["problems"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"receipt": "AA=="},
        {"receipt": "%"},
        {"receipts": []},
        {"opening": "AA=="},
        {"receipt": 5},
        {"receipt": "AA==", "receipts": [{"receipt": "AA=="}]},
    ],
)
def test_what_is_no_receipt_is_a_bad_request(ask: Ask, app: Any, body: dict[str, object]) -> None:
    assert ask("POST", "/v1/verify", app, json=body).status_code == 400


def test_a_node_that_signs_nothing_says_so(ask: Ask, make_service: Callable[..., Service], tmp_path: Path) -> None:
    app = create_app(Signing(sealer(tmp_path, policy="off")).service(make_service(engine)))
    refused = ask("POST", "/v1/chat/completions", app, json=CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "receipts_off")


def test_they_are_counted(ask: Ask, app: Any, signing: Signing) -> None:
    ask("POST", "/v1/chat/completions", app, json=CHAT)
    signing.refused = 3
    text = ask("GET", "/metrics", app).text
    assert "shoal:receipts_signed_total 1.0" in text
    assert "shoal:receipts_refused_total 3.0" in text
