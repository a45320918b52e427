"""/v1/responses answers as a pure machine: chunks in, events out; the whole answer is what it holds at the end.

Items follow one another: text opens a message, a tool call closes it and opens a call, and so on.

    created in_progress ( item.added ( part.added text.delta* text.done part.done | arguments.delta* arguments.done )
    item.done )* ( completed | incomplete | failed )
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shoal.core.chunk import Chunk, FinishReason, ToolCallDelta, Usage
from shoal.core.request import Message, ToolCall
from shoal.server.context import fresh_id
from shoal.server.wire.logprobs import chat_logprobs
from shoal.server.wire.usage import responses_usage

Event = dict[str, Any]


@dataclass(slots=True)
class ResponseMachine:
    """`head` holds the response's fields that do not change, `receipt` the field of that name once there is one."""

    head: dict[str, Any]
    output: list[dict[str, Any]] = field(default_factory=list)
    open_call: int | None = None
    is_open: bool = False
    usage: Usage | None = None
    receipt: dict[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    num_events: int = 0

    def begin(self) -> Iterator[Event]:
        yield self._event("response.created", response=self.response("in_progress"))
        yield self._event("response.in_progress", response=self.response("in_progress"))

    def take(self, chunk: Chunk) -> Iterator[Event]:
        if chunk.text or chunk.logprobs:
            yield from self._say(chunk)
        for call in chunk.tool_calls:
            yield from self._call(call)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage

    def end(self) -> Iterator[Event]:
        status = self.status
        if not self.output:  # an empty answer is still a message
            yield from self._open_message()
        yield from self._close_item(status)
        yield self._event(f"response.{status}", response=self.response(status))

    def fail(self, code: str, message: str) -> Event:
        response = self.response("failed") | {"error": {"code": code, "message": message}}
        return self._event("response.failed", response=response)

    @property
    def status(self) -> str:
        return "incomplete" if self.finish_reason == "length" else "completed"

    def response(self, status: str) -> dict[str, Any]:
        """The response object as it stands."""
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = responses_usage(self.usage).plain() if self.usage is not None else None
        output = [_copy(item) for item in self.output]
        said = {"status": status, "incomplete_details": reason, "output": output, "usage": usage}
        return {**self.head, **said, **self.receipt}

    def message(self) -> Message:
        """The answer as a later request's history has it."""
        texts = [part["text"] for item in self.output if item["type"] == "message" for part in item["content"]]
        calls = [item for item in self.output if item["type"] == "function_call"]
        called = tuple(ToolCall(item["call_id"], item["name"], item["arguments"]) for item in calls)
        return Message("assistant", "".join(texts), tool_calls=called)

    def _say(self, chunk: Chunk) -> Iterator[Event]:
        if not self.is_open or self.output[-1]["type"] != "message":
            yield from self._close_item()
            yield from self._open_message()
        logprobs = [entry.plain() for entry in chat_logprobs(chunk.logprobs)]
        part = self.output[-1]["content"][0]
        part["text"] += chunk.text
        part["logprobs"] += logprobs
        yield self._item_event("response.output_text.delta", content_index=0, delta=chunk.text, logprobs=logprobs)

    def _open_message(self) -> Iterator[Event]:
        item = {"id": fresh_id("msg_"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield from self._open_item(item)
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.output[-1]["content"].append(part)
        yield self._item_event("response.content_part.added", content_index=0, part=dict(part))

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if self.open_call != delta.index:
            yield from self._close_item()
            self.open_call = delta.index
            item = {"id": fresh_id("fc_"), "type": "function_call", "status": "in_progress", "arguments": ""}
            yield from self._open_item({**item, "call_id": delta.id or fresh_id("call_"), "name": delta.name or ""})
        self.output[-1]["arguments"] += delta.arguments
        if delta.arguments:
            yield self._item_event("response.function_call_arguments.delta", delta=delta.arguments)

    def _open_item(self, item: dict[str, Any]) -> Iterator[Event]:
        self.output.append(item)
        self.is_open = True
        position = len(self.output) - 1
        yield self._event("response.output_item.added", output_index=position, item=_copy(item))

    def _close_item(self, status: str = "completed") -> Iterator[Event]:
        if not self.is_open:
            return
        self.is_open, self.open_call = False, None
        item = self.output[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            text, logprobs = part["text"], part["logprobs"]
            yield self._item_event("response.output_text.done", content_index=0, text=text, logprobs=logprobs)
            yield self._item_event("response.content_part.done", content_index=0, part=dict(part))
        else:
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._item_event("response.function_call_arguments.done", **done)
        yield self._event("response.output_item.done", output_index=len(self.output) - 1, item=_copy(item))

    def _item_event(self, kind: str, **values: Any) -> Event:
        return self._event(kind, item_id=self.output[-1]["id"], output_index=len(self.output) - 1, **values)

    def _event(self, kind: str, **values: Any) -> Event:
        self.num_events += 1
        return {"type": kind, "sequence_number": self.num_events - 1, **values}


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    """An event is a snapshot: what follows does not change it."""
    if item["type"] == "message":
        return {**item, "content": [dict(part) for part in item["content"]]}
    return dict(item)
