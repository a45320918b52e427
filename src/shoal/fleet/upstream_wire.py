"""Requests as an OpenAI-compatible server takes them, and its events as chunks. Pure.

What a flavour of server does not take is refused with `InvalidRequest`, never dropped: the router then asks another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from shoal.core.chunk import Chunk, FinishReason, TokenLogprob, ToolCallDelta, Usage
from shoal.core.errors import InvalidRequest, PeerFault
from shoal.core.request import Message, Request, Sampling, ToolChoice

Flavour = Literal["openai", "vllm", "sglang", "llamacpp", "ollama"]
FLAVOURS: Mapping[str, Flavour] = {
    "openai": "openai",
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "ollama": "ollama",
}

PLAIN = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "max_tokens",
    "logprobs",
)
"""Fields of `Sampling` that every server takes."""

EXTRA: Mapping[str, Mapping[str, str]] = {
    "openai": {},
    "ollama": {},
    "llamacpp": {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repeat_penalty",
        "ignore_eos": "ignore_eos",
    },
    "sglang": {
        name: name for name in ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "min_tokens")
    },
    "vllm": {
        name: name for name in ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "min_tokens")
    },
}
"""flavour -> our name -> its name, for what goes beyond OpenAI's own API."""

CONTINUES: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "sglang": {"continue_final_message": True},
    "llamacpp": {},
    "ollama": {},
}
"""flavour -> what makes it go on with a last message of the assistant; a flavour that is not here cannot."""


def body(request: Request, model: str, flavour: Flavour) -> tuple[str, dict[str, Any]]:
    """(path, JSON body) of a streaming request for `model`, the server's own name for it."""
    _check(request)
    fields_ = {"model": model, "stream": True, "stream_options": {"include_usage": True}, "n": request.n}
    fields_ |= _sampling(_rest(request), flavour)
    if _is_chat(request):
        return "/v1/chat/completions", {**fields_, **_chat(request, flavour)}
    return "/v1/completions", {**fields_, **_completion(request)}


def _check(request: Request) -> None:
    refused = {
        "approximation": request.approximation is not None,
        "receipt": request.receipt,
        "echo": request.echo,
        "n": request.n != 1 and request.resume is not None,
        "response_format": request.constraint is not None and request.constraint.kind != "json_schema",
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise InvalidRequest(f"{name}: an upstream server cannot do this", name)


def _rest(request: Request) -> Sampling:
    """With what an answer that goes on may still have."""
    sampling, resume = request.sampling, request.resume
    if resume is None or sampling.max_tokens is None:
        return sampling
    return replace(sampling, max_tokens=max(1, sampling.max_tokens - resume.count))


def _sampling(sampling: Sampling, flavour: Flavour) -> dict[str, Any]:
    plain, found = Sampling(), dict[str, Any]()
    for name in (item.name for item in fields(Sampling)):
        value = getattr(sampling, name)
        if name == "logprobs" or value == getattr(plain, name):
            continue
        target = name if name in PLAIN else EXTRA[flavour].get(name)
        if target is None:
            raise InvalidRequest(f"{name}: an upstream server of kind {flavour} does not take it", name)
        found[target] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _completion(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": request.prompt if isinstance(request.prompt, str) else list(request.prompt)}
    if request.constraint is not None:
        raise InvalidRequest("response_format: an upstream server takes it for chat only", "response_format")
    if request.resume is not None and request.resume.text:
        if not isinstance(request.prompt, str):
            raise InvalidRequest("resume: text cannot follow token ids at an upstream server", "resume")
        found["prompt"] = request.prompt + request.resume.text
    if request.sampling.logprobs is not None:
        found["logprobs"] = request.sampling.logprobs
    return found


def _chat(request: Request, flavour: Flavour) -> dict[str, Any]:
    found: dict[str, Any] = {"messages": [_message(item) for item in request.prompt if isinstance(item, Message)]}
    if request.sampling.logprobs is not None:
        found |= {"logprobs": True, "top_logprobs": request.sampling.logprobs}
    if request.tools:
        found["tools"] = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in request.tools
        ]
        found |= _tool_choice(request.tool_choice)
    if request.constraint is not None:
        schema = {"name": "answer", "schema": json.loads(request.constraint.value), "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.resume is not None and request.resume.text:
        if flavour not in CONTINUES:
            raise InvalidRequest(f"resume: an upstream server of kind {flavour} begins every answer anew", "resume")
        found["messages"].append({"role": "assistant", "content": request.resume.text})
        found |= CONTINUES[flavour]
    return found


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    named = {"type": "function", "function": {"name": choice.name}}
    found: dict[str, Any] = {"tool_choice": named if choice.mode == "named" else choice.mode}
    return found if choice.parallel else {**found, "parallel_tool_calls": False}


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        found["name"] = message.name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


def _is_chat(request: Request) -> bool:
    return bool(request.prompt) and isinstance(request.prompt[0], Message)


# ---- events -----------------------------------------------------------------------------------------------

FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "stop",
}


@dataclass(slots=True)
class Events:
    """The events of one answer, in order. The chunk with the last finish reason waits for the usage behind it.

    first  index of our first choice: theirs begin at 0.
    """

    first: int = 0
    _held: Chunk | None = None
    _usage: Usage | None = None

    def push(self, event: str) -> list[Chunk]:
        """The data of one server-sent event. PeerFault for what is not a chunk of an answer."""
        try:
            data = json.loads(event)
            chunks = [self._chunk(choice) for choice in data.get("choices", ())]
            usage = data.get("usage")
            if usage:
                details = usage.get("prompt_tokens_details") or {}
                self._usage = Usage(
                    int(usage["prompt_tokens"]),
                    int(usage.get("completion_tokens", 0)),
                    int(details.get("cached_tokens") or 0),
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise PeerFault(f"expected an event of an answer, found {event[:200]!r}") from error
        return [ready for chunk in chunks for ready in self._pass(chunk)]

    def end(self) -> list[Chunk]:
        """The answer is over: the held chunk, with what it cost as far as the server said."""
        if self._held is None:
            raise PeerFault("the upstream server ended an answer without a finish reason")
        held = self._held
        return [
            Chunk(held.index, held.text, (), held.logprobs, held.tool_calls, held.finish_reason, self._usage or Usage())
        ]

    def _pass(self, chunk: Chunk) -> list[Chunk]:
        if chunk.finish_reason is None:
            return [chunk] if chunk.text or chunk.tool_calls or chunk.logprobs else []
        before, self._held = self._held, chunk
        return [] if before is None else [before]

    def _chunk(self, choice: dict[str, Any]) -> Chunk:
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or ""
        reason = choice.get("finish_reason")
        if reason is not None and reason not in FINISH:
            raise ValueError(reason)
        if type(text) is not str:
            raise ValueError("text")
        return Chunk(
            self.first + int(choice.get("index", 0)),
            text,
            (),
            tuple(_logprob(item) for item in (choice.get("logprobs") or {}).get("content") or ()),
            tuple(_tool_delta(item) for item in delta.get("tool_calls") or ()),
            None if reason is None else FINISH[reason],
        )


def _tool_delta(item: dict[str, Any]) -> ToolCallDelta:
    function = item.get("function") or {}
    texts = item.get("id"), function.get("name"), function.get("arguments") or ""
    if not all(text is None or type(text) is str for text in texts):
        raise ValueError("a tool call")
    return ToolCallDelta(int(item.get("index", 0)), *texts)


def _octets(value: Any) -> bytes:
    if type(value) is not list:  # bytes(10**10) would be ten gigabytes of zeros
        raise ValueError("bytes")
    return bytes(value)


def _logprob(item: dict[str, Any]) -> TokenLogprob:
    """Token ids are not in the API: -1 stands for an unknown one."""
    data = _octets(item["bytes"]) if item.get("bytes") is not None else str(item["token"]).encode()
    top = tuple(_logprob(other) for other in item.get("top_logprobs") or ())
    return TokenLogprob(-1, data, float(item["logprob"]), top)
