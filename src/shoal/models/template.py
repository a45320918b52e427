"""Messages to the token ids a model was trained on, by the Jinja template that comes with it.

Control tokens are those which the template writes; a user's text never becomes one (see template_guard).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jinja2

from shoal.core.errors import BadWeights, InvalidRequest
from shoal.core.request import Message, Tool, ToolCall
from shoal.models.template_environment import MAX_OUTPUT_CHARS, TemplateRefusal, budgeted_range, environment
from shoal.models.template_guard import Guard
from shoal.models.tools import has_native_tools
from shoal.models.tools_prompt import with_tools_as_text

if TYPE_CHECKING:
    from shoal.models.tokenizer import Tokenizer

_NINE = re.compile(r"length\s*!=\s*9")
"""Mistral's templates insist on tool-call ids of nine characters."""


class ChatTemplate:
    """A model's chat template, compiled once; None where the model has none, and then every use says so.

    `native_tools`: the template describes tools itself, in a format that `tools.ToolFormat` can read back. Without it
    tools are described in the system message and their calls and results are written as text.
    """

    def __init__(
        self,
        source: str | None,
        tokenizer: Tokenizer,
        *,
        native_tools: bool | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._tokenizer = tokenizer
        self._control = [text for text in tokenizer.vocabulary.control if text]
        self._template = None if source is None else _compile(source, now)
        self.native_tools = has_native_tools(source) if native_tools is None else native_tools
        self._knows_developer = source is not None and "developer" in source
        self._wants_nine = source is not None and _NINE.search(source) is not None

    def encode(
        self, messages: tuple[Message, ...], tools: tuple[Tool, ...] = (), *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of the conversation. The begin token is there once where the model wants one.

        InvalidRequest (param "messages") for a model without a template and for what the template refuses.
        """
        marked, guard = self._render(messages, tools, add_generation_prompt)
        parts = self._tokenizer.split_control(marked)
        ids = self._tokenizer.encode_parts(guard.remove(part) if isinstance(part, str) else part for part in parts)
        bos = self._tokenizer.bos_id
        return [bos, *ids] if self._tokenizer.adds_bos and bos is not None and ids[:1] != [bos] else ids

    def render(
        self, messages: tuple[Message, ...], tools: tuple[Tool, ...] = (), *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the template writes it, for people to read. Raises as `encode` does."""
        marked, guard = self._render(messages, tools, add_generation_prompt)
        return guard.remove(marked)

    def _render(
        self, messages: tuple[Message, ...], tools: tuple[Tool, ...], add_generation_prompt: bool
    ) -> tuple[str, Guard]:
        try:
            return self._render_deep(messages, tools, add_generation_prompt)
        except RecursionError as error:
            raise InvalidRequest("tools or tool arguments are nested too deeply", "messages") from error

    def _render_deep(
        self, messages: tuple[Message, ...], tools: tuple[Tool, ...], add_generation_prompt: bool
    ) -> tuple[str, Guard]:
        if not self.native_tools:
            messages, tools = with_tools_as_text(messages, tools, has_system=self._has_system), ()
        guard = Guard([self.source or "", *_texts(messages, tools)], self._control)
        variables = {
            "messages": [self._message(message, guard) for message in messages],
            "tools": [_tool(tool, guard) for tool in tools] or None,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._run(variables), guard

    def _run(self, variables: dict[str, Any]) -> str:
        if self._template is None:
            raise InvalidRequest("this model has no chat template; send a prompt to /v1/completions", "messages")
        pieces: list[str] = []
        left = MAX_OUTPUT_CHARS
        try:
            for piece in self._template.generate(range=budgeted_range(), **self._special(), **variables):
                left -= len(piece)
                if left < 0:
                    raise TemplateRefusal(f"the conversation renders to more than {MAX_OUTPUT_CHARS} characters")
                pieces.append(piece)
        except (
            Exception
        ) as error:  # a template is foreign code: whatever it raises, this conversation cannot be rendered
            raise InvalidRequest(f"the model's chat template refused the messages: {error}", "messages") from error
        return "".join(pieces)

    def _special(self) -> dict[str, str]:
        ids = {"bos_token": self._tokenizer.bos_id, "eos_token": self._tokenizer.eos_id}
        return {name: self._tokenizer.vocabulary.texts[token] for name, token in ids.items() if token is not None}

    @cached_property
    def _has_system(self) -> bool:
        """Whether a system message is shown: some templates refuse it, some leave it out."""
        try:
            shown = self._run({"messages": [{"role": "system", "content": "PROBE"}, {"role": "user", "content": "Hi"}]})
        except InvalidRequest:
            return False
        return "PROBE" in shown

    def _message(self, message: Message, guard: Guard) -> dict[str, Any]:
        is_unknown = message.role == "developer" and not self._knows_developer
        built: dict[str, Any] = {"role": "system" if is_unknown else message.role}
        built["content"] = guard.string(message.content, may_be_inside=True)
        if message.name is not None:
            built["name"] = guard.string(message.name, may_be_inside=True)
        if message.tool_calls:
            built["tool_calls"] = [self._call(call, guard) for call in message.tool_calls]
        if message.tool_call_id is not None:
            built["tool_call_id"] = guard.string(self._call_id(message.tool_call_id))
        return built

    def _call(self, call: ToolCall, guard: Guard) -> dict[str, Any]:
        function = {"name": guard.string(call.name, may_be_inside=True), "arguments": guard.value(_arguments(call))}
        return {"id": guard.string(self._call_id(call.id)), "type": "function", "function": function}

    def _call_id(self, call_id: str) -> str:
        return "".join(char for char in call_id if char.isalnum())[-9:].rjust(9, "0") if self._wants_nine else call_id


def _compile(source: str, now: Callable[[], datetime]) -> jinja2.Template:
    try:
        return environment(now).from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise BadWeights("chat template", f"line {error.lineno}", "a Jinja template", str(error)) from error


def _tool(tool: Tool, guard: Guard) -> dict[str, Any]:
    function = {
        "name": guard.string(tool.name, may_be_inside=True),
        "description": guard.string(tool.description, may_be_inside=True),
        "parameters": guard.value(dict(tool.parameters)),
    }
    return {"type": "function", "function": function}


def _arguments(call: ToolCall) -> Any:
    """Templates expect an object; text that is none stays text."""
    try:
        value = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return value if isinstance(value, dict) else call.arguments


def _texts(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> Iterator[str]:
    """Every string of the conversation. Escapes in arguments are resolved, so that no character hides in one."""
    for message in messages:
        yield from (message.content, message.name or "", message.tool_call_id or "")
        for call in message.tool_calls:
            yield from (call.id, call.name, json.dumps(_arguments(call), ensure_ascii=False))
    for tool in tools:
        yield from (tool.name, tool.description, json.dumps(dict(tool.parameters), ensure_ascii=False))
