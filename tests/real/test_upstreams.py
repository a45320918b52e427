"""A node that asks other servers: real processes and a real model, one of them killed in the middle of an answer."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest
from served import Served, served, until

QUESTION = "Once upon a time, in a small village by the sea,"
OPTIONS = {"prompt": QUESTION, "max_tokens": 120, "temperature": 0}


@pytest.fixture
def model(default_gguf: Path) -> Path:
    return default_gguf


def text_of(server: Served, **options: object) -> str:
    answer = server.client().completions.create(model=server.model, **{**OPTIONS, **options})  # type: ignore[call-overload]
    return str(answer.choices[0].text)


def test_a_server_killed_in_mid_answer_loses_no_word(model: Path, home: Path) -> None:
    with served(model, home) as one, served(model, home) as two:
        expected = text_of(two)
        flags = (
            "--upstream",
            f"one=vllm+{one.url}",
            "--upstream",
            f"two=vllm+{two.url}/v1",
            "--upstream-price",
            "two=9",
        )
        with served(Path("none"), home, *flags) as node:
            assert [card.id for card in node.client().models.list()] == [one.model]
            found, usage = "", None
            for chunk in node.client().completions.create(
                model=one.model,
                stream=True,
                stream_options={"include_usage": True},
                **OPTIONS,  # type: ignore[call-overload]
            ):
                found += chunk.choices[0].text if chunk.choices else ""
                usage = chunk.usage or usage
                if len(found) > 60 and one.process.poll() is None:
                    one.process.kill()
            assert found == expected
            assert usage is not None
            assert abs(usage.completion_tokens - 120) <= 2  # servers of text alone leave the count to be guessed
            decisions = httpx.get(f"{node.url}/v1/mesh").json()["decisions"]
            assert [decision["provider"] for decision in decisions] == ["upstream:one", "upstream:two"]
            assert decisions[0]["outcome"].startswith("failed: one broke off")
            assert decisions[1]["outcome"] == "answered"


def test_chat_options_and_errors_travel(model: Path, home: Path) -> None:
    with served(model, home) as one, served(Path("none"), home, "--upstream", f"one=vllm+{one.url}") as node:
        ask = node.client().chat.completions.create
        question = [{"role": "user", "content": "Say yes or no."}]
        options = {"messages": question, "max_tokens": 8, "seed": 3, "extra_body": {"top_k": 5, "min_p": 0.1}}
        here = one.client().chat.completions.create(model=one.model, **options)  # type: ignore[call-overload]
        there = ask(model=one.model, **options)  # type: ignore[call-overload]
        assert there.choices[0].message.content == here.choices[0].message.content
        assert there.usage.prompt_tokens == here.usage.prompt_tokens
        with pytest.raises(openai.NotFoundError, match="available"):
            ask(model="nothing", messages=question)  # type: ignore[call-overload]
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            ask(model=one.model, messages=question, logit_bias={"99999999": 1.0})  # type: ignore[call-overload]
        one.end()
        with pytest.raises(openai.InternalServerError, match="cannot reach one"):
            ask(model=one.model, messages=question)  # type: ignore[call-overload]


def test_an_upstream_that_comes_later_is_found(model: Path, home: Path) -> None:
    """A node whose own engine is there never waits for its upstreams."""
    with served(model, home, "--upstream", "later=vllm+http://127.0.0.1:9") as node:
        assert text_of(node, max_tokens=4)
        assert until(lambda: "upstream later is not used" in node.printed())
