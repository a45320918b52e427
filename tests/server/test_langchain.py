"""LangChain's OpenAI adapter works unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from shoal.core.chunk import Chunk, ToolCallDelta, Usage
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Request

pytestmark = pytest.mark.real


class Weather(BaseModel):
    """The weather in a city."""

    city: str


def answer(request: Request) -> Sequence[Any]:
    if request.constraint is not None:
        return [Chunk(text='{"city":"Rome"}'), Chunk(finish_reason="stop", usage=Usage(1, 1))]
    if not request.tools:
        return words("Hel", "lo")(request)
    call = ToolCallDelta(0, "call_1", "Weather", '{"city":"Rome"}')
    return [Chunk(tool_calls=(call,)), Chunk(finish_reason="tool_calls", usage=Usage(1, 1))]


@pytest.fixture(scope="module")
def chat(start: Callable[..., Any]) -> ChatOpenAI:
    url = start(ScriptedGenerate(answer)).url
    return ChatOpenAI(model="tiny", base_url=f"{url}/v1", api_key=lambda: "none", max_retries=0)


def test_invoke(chat: ChatOpenAI) -> None:
    message = chat.invoke("hi")
    assert message.content == "Hello"
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 5


def test_stream(chat: ChatOpenAI) -> None:
    assert "".join(str(part.content) for part in chat.stream("hi")) == "Hello"


def test_bound_tools_are_called(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([Weather])
    assert bound.invoke("hi").tool_calls[0]["args"] == {"city": "Rome"}
    whole: Any = None
    for part in bound.stream("hi"):
        whole = part if whole is None else whole + part
    assert whole.tool_calls[0]["args"] == {"city": "Rome"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: ChatOpenAI, method: Any) -> None:
    assert chat.with_structured_output(Weather, method=method).invoke("hi") == Weather(city="Rome")
