"""The official client, over a real socket: what its users do works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from shoal.core.chunk import Chunk, TokenLogprob, ToolCallDelta, Usage
from shoal.core.errors import ContextTooLong, DeadlineExceeded, LocalError, Overloaded, Unavailable, Unsupported
from shoal.core.fakes import ScriptedGenerate
from shoal.core.request import Approximation, Message, Request, ToolCall

pytestmark = pytest.mark.real
USAGE = Usage(7, 4, 5, queue_s=0.5)
FAILURES = {
    "overloaded": Overloaded("full", 2.2),
    "unavailable": Unavailable("draining"),
    "late": DeadlineExceeded("too late"),
    "long": ContextTooLong("too long"),
    "unsupported": Unsupported("not here"),
    "broken": LocalError("out of memory"),
    "bug": ZeroDivisionError("secret detail"),
}
SAID = [
    TokenLogprob(1, b"4", -0.5, (TokenLogprob(1, b"4", -0.5), TokenLogprob(2, b"5", -1.5))),
    TokenLogprob(3, "é".encode()[:1], -0.25),
    TokenLogprob(4, "é".encode()[1:], -0.125),
]


def answer(request: Request) -> Sequence[Any]:
    """Says what the request's last words ask for."""
    message = request.prompt[-1]
    last = message.content if isinstance(message, Message) else str(request.prompt)
    if last.partition(" ")[0] == "fail":
        return [FAILURES[last.split()[1]]]
    if last == "break":
        return [Chunk(text="so far"), LocalError("it broke")]
    if last == "logprobs":
        return [Chunk(text="4", logprobs=tuple(SAID[:1])), Chunk(text="é", logprobs=tuple(SAID[1:])), end("stop")]
    if request.constraint is not None:
        return [Chunk(text='{"city":"Rome",'), Chunk(text='"days":3}'), end("stop")]
    if request.tools and last != "done":
        return [
            Chunk(tool_calls=(ToolCallDelta(0, "call_1", "weather"),)),
            Chunk(tool_calls=(ToolCallDelta(0, arguments='{"city":'), ToolCallDelta(0, arguments='"Rome"}'))),
            Chunk(tool_calls=(ToolCallDelta(1, "call_2", "weather", '{"city":"Oslo"}'),)),
            end("tool_calls"),
        ]
    parts = [Chunk(index=i, text=text) for text in ("Hel", "lo") for i in range(request.n)]
    ends = [Chunk(index=i, finish_reason="length") for i in range(request.n - 1)]
    return [*parts, *ends, Chunk(index=request.n - 1, finish_reason="stop", usage=USAGE)]


def end(reason: Any) -> Chunk:
    return Chunk(finish_reason=reason, usage=USAGE)


class Place(BaseModel):
    city: str


class Trip(BaseModel):
    city: str
    days: int


TOOL: Any = {
    "name": "weather",
    "description": "now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
FLAT_TOOLS: Any = [{"type": "function", "strict": True, **TOOL}]
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def generate() -> ScriptedGenerate:
    return ScriptedGenerate(answer)


@pytest.fixture(scope="module")
def url(start: Callable[..., Any], generate: ScriptedGenerate) -> str:
    return f"{start(generate).url}/v1"


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_chat_gives_text_usage_and_a_fingerprint(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="tiny", messages=HELLO, n=2, seed=1, user="me")
    assert [choice.message.content for choice in done.choices] == ["Hello", "Hello"]
    assert [choice.finish_reason for choice in done.choices] == ["length", "stop"]
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (7, 4, 11)
    assert done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.cached_tokens == 5
    assert done.id.startswith("chatcmpl-")
    assert done.system_fingerprint
    assert done.model == "tiny"


def test_usage_names_who_computed_the_answer(start: Callable[..., Any]) -> None:
    usage = Usage(1, 2, providers=("peer", "local"))
    url = start(ScriptedGenerate(lambda _: [Chunk(text="x", finish_reason="stop", usage=usage)])).url
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(model="tiny", messages=HELLO).usage
    stream = client.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = [chunk.usage for chunk in stream][-1]
    response = client.responses.create(model="tiny", input="hello").usage
    several = client.completions.create(model="tiny", prompt=["a", "b"]).usage
    for told in (whole, last, response, several):
        assert told is not None
        assert told.model_extra == {"shoal": {"providers": ["peer", "local"]}}


def test_sampling_arrives_whole(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "min_tokens": 2, "ignore_eos": True, "priority": -3}
    client.chat.completions.create(
        model="tiny-pirate", messages=HELLO, temperature=0, top_p=0.5, frequency_penalty=1, presence_penalty=-1,
        logit_bias={"7": -100}, seed=-4, stop=["a", "b"], max_completion_tokens=9, store=False, service_tier="auto",
        extra_body={**extra, "stop_token_ids": [4]},
    )  # fmt: skip
    seen = generate.seen[-1]
    s = seen.sampling
    assert (seen.model, seen.adapter, seen.priority, seen.n) == ("tiny", "tiny-pirate", -3, 1)
    assert (s.temperature, s.top_p, s.top_k, s.min_p, s.repetition_penalty) == (0, 0.5, 5, 0.1, 1.5)
    assert (s.frequency_penalty, s.presence_penalty, s.logit_bias, s.seed) == (1, -1, {7: -100}, -4)
    assert (s.stop, s.stop_token_ids, s.ignore_eos, s.min_tokens, s.max_tokens) == (("a", "b"), (4,), True, 2, 9)


def test_budgets_arrive_and_none_means_nothing_left_out(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    client.chat.completions.create(model="tiny", messages=HELLO)
    assert generate.seen[-1].approximation is None
    budgets = {"kv_budget": 256, "kv_method": "snapkv", "prompt_budget": 512, "core_neurons": 0.4}
    client.chat.completions.create(model="tiny", messages=HELLO, extra_body=budgets)
    client.completions.create(model="tiny", prompt="Hello", extra_body=budgets)
    wanted = Approximation(256, "snapkv", 512, "specpc", 0.4)
    assert [request.approximation for request in generate.seen[-2:]] == [wanted, wanted]
    for bad in ({"kv_budget": 0}, {"kv_budget": 64, "kv_method": "best"}, {"kv_method": "snapkv"}, {"core_neurons": 1}):
        with pytest.raises(openai.BadRequestError, match=next(reversed(bad))):
            client.chat.completions.create(model="tiny", messages=HELLO, extra_body=bad)


def test_stream_has_the_role_first_and_usage_last(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, n=2, stream_options={"include_usage": True}
        )
    )
    for index in range(2):
        deltas = [c.choices[0].delta for c in chunks if c.choices and c.choices[0].index == index]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == "Hello"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_async_client_streams_as_well(url: str) -> None:
    async def go() -> str:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(go()) == "Hello"


def test_tools_are_called_answered_and_remembered(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    tools: Any = [{"type": "function", "function": TOOL}]
    first = client.chat.completions.create(
        model="tiny", messages=HELLO, tools=tools, tool_choice="required", parallel_tool_calls=False
    )
    assert (generate.seen[-1].tool_choice.mode, generate.seen[-1].tool_choice.parallel) == ("required", False)
    assert first.choices[0].finish_reason == "tool_calls"
    calls: Any = first.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Rome", "Oslo"]
    assert first.choices[0].message.content is None
    result: Any = [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "done"}]},
    ]
    second = client.chat.completions.create(model="tiny", messages=[*HELLO, *result], tools=tools)
    assert second.choices[0].message.content == "Hello"
    prompt: Any = generate.seen[-1].prompt
    assert prompt[1].tool_calls[0] == ToolCall("call_1", "weather", '{"city":"Rome"}')
    assert prompt[2] == Message("tool", "done", tool_call_id="call_1")


def test_streamed_tool_calls_add_up(client: openai.OpenAI) -> None:
    tool: Any = openai.pydantic_function_tool(Place, name="weather")
    with client.chat.completions.stream(model="tiny", messages=HELLO, tools=[tool]) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.done" and event.index == 1:
                assert event.arguments == '{"city":"Oslo"}'
                break
        else:
            pytest.fail("the second call never ended")


def test_structured_output_parses(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    done = client.chat.completions.parse(model="tiny", messages=HELLO, response_format=Trip)
    assert done.choices[0].message.parsed == Trip(city="Rome", days=3)
    constraint = generate.seen[-1].constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"
    assert list(json.loads(constraint.value)["properties"]) == ["city", "days"]


def test_logprobs_in_both_shapes(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "logprobs"}]
    chat = client.chat.completions.create(model="tiny", messages=asked, logprobs=True, top_logprobs=2)
    assert chat.choices[0].logprobs is not None
    content = chat.choices[0].logprobs.content or []
    assert (content[0].token, content[0].logprob, content[0].bytes) == ("4", -0.5, [52])
    assert [top.token for top in content[0].top_logprobs] == ["4", "5"]
    assert b"".join(bytes(entry.bytes or []) for entry in content).decode() == "4é"
    text = client.completions.create(model="tiny", prompt="logprobs", logprobs=2)
    logprobs = text.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["4", "bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs.text_offset == [0, 1, 1]
    assert logprobs.top_logprobs == [{"4": -0.5, "5": -1.5}, None, None]


def test_completions_number_choices_over_prompts(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    done = client.completions.create(model="tiny", prompt=[[1, 2], [3]], n=2, echo=True)
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (14, 8)
    assert [request.prompt for request in generate.seen[-2:]] == [(1, 2), (3,)]
    assert generate.seen[-1].echo
    assert generate.seen[-1].sampling.max_tokens == 16
    stream = client.completions.create(
        model="tiny", prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    for index in range(2):
        assert "".join(c.choices[0].text for c in chunks if c.choices and c.choices[0].index == index) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 14


def test_responses_text_and_history(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    first = client.responses.create(model="tiny", input="hi", instructions="be brief", metadata={"a": "b"})
    assert (first.output_text, first.status, first.metadata) == ("Hello", "completed", {"a": "b"})
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.input_tokens_details.cached_tokens) == (7, 5)
    client.responses.create(model="tiny", input="more", previous_response_id=first.id)
    expected = (Message("user", "hi"), Message("assistant", "Hello"), Message("user", "more"))
    assert generate.seen[-1].prompt == expected
    assert client.responses.retrieve(first.id).output_text == "Hello"
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="forgotten"):
        client.responses.create(model="tiny", input="more", previous_response_id=first.id)


def test_responses_tools_go_round(client: openai.OpenAI, generate: ScriptedGenerate) -> None:
    tools = FLAT_TOOLS
    first = client.responses.create(
        model="tiny", input="hi", tools=tools, tool_choice={"type": "function", "name": "weather"}
    )
    assert generate.seen[-1].tool_choice.name == "weather"
    assert [item.type for item in first.output] == ["function_call", "function_call"]
    outputs: Any = [{"type": "function_call_output", "call_id": "call_1", "output": "done"}]
    history: Any = [{"role": "user", "content": "hi"}, *first.output, *outputs]
    assert client.responses.create(model="tiny", input=history, tools=tools).output_text == "Hello"
    prompt: Any = generate.seen[-1].prompt
    assert [message.role for message in prompt] == ["user", "assistant", "tool"]
    assert [call.id for call in prompt[1].tool_calls] == ["call_1", "call_2"]


def test_responses_streams_events_in_order(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="tiny", input="hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    with client.responses.stream(model="tiny", input="hi", tools=FLAT_TOOLS) as stream:
        stream.until_done()
        calls: Any = stream.get_final_response().output
    assert [call.arguments for call in calls] == ['{"city":"Rome"}', '{"city":"Oslo"}']
    parsed = client.responses.parse(model="tiny", input="hi", text_format=Trip)
    assert parsed.output_parsed == Trip(city="Rome", days=3)


def test_embeddings_as_floats_and_base64_agree(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="tiny", input=["a", "abc"])  # the client asks for base64 by itself
    plain = client.embeddings.create(model="tiny", input=["a", "abc"], encoding_format="float", dimensions=8)
    assert [item.embedding for item in packed.data] == [pytest.approx(item.embedding) for item in plain.data]
    assert [item.index for item in plain.data] == [0, 1]
    assert plain.usage.prompt_tokens == 4
    with pytest.raises(openai.BadRequestError, match="8 dimensions"):
        client.embeddings.create(model="tiny", input="a", dimensions=4)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny-pirate"]
    assert client.models.retrieve("tiny-pirate").id == "tiny-pirate"
    with pytest.raises(openai.NotFoundError, match="available: tiny, tiny-pirate"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ("overloaded", 429, "rate_limit_exceeded"),
        ("unavailable", 503, "service_unavailable"),
        ("late", 504, "deadline_exceeded"),
        ("long", 400, "context_length_exceeded"),
        ("unsupported", 501, "unsupported"),
        ("broken", 500, "internal_error"),
        ("bug", 500, "internal_error"),
    ],
)
def test_early_errors_have_their_status(
    client: openai.OpenAI, failure: str, status: int, code: str, is_stream: bool
) -> None:
    asked: Any = [{"role": "user", "content": f"fail {failure}"}]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="tiny", messages=asked, stream=is_stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "secret" not in caught.value.response.text
    if status in (429, 503):
        assert int(caught.value.response.headers["retry-after"]) == (3 if status == 429 else 2)


def test_an_error_in_mid_stream_is_an_event(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "break"}]
    texts: list[str | None] = []
    stream = client.chat.completions.create(model="tiny", messages=asked, stream=True)
    with pytest.raises(openai.APIError, match="it broke"):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert texts == ["", "so far"]
    events = list(client.responses.create(model="tiny", input="break", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.message == "it broke"
