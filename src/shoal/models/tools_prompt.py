"""Tools for models whose template knows none: described in the system message, called and answered in plain text.

The convention is Hermes' (NousResearch/Hermes-Function-Calling): `<tools>` lists signatures, `<tool_call>` holds one
JSON object, `<tool_response>` a result. Many models have seen it; llama.cpp's generic handler works alike.
"""

from __future__ import annotations

import json
from dataclasses import replace

from shoal.core.request import Message, Tool, ToolCall

_INSTRUCTIONS = """# Tools

You may call one or more functions to help with the user's request. Their signatures are between <tools> and </tools>:
<tools>
{signatures}
</tools>

To call a function, answer with a JSON object that has its name and arguments, between <tool_call> and </tool_call>:
<tool_call>
{{"name": "<function name>", "arguments": <arguments object>}}
</tool_call>"""


def with_tools_as_text(
    messages: tuple[Message, ...], tools: tuple[Tool, ...], *, has_system: bool = True
) -> tuple[Message, ...]:
    """The same conversation without tool messages or tool calls, `tools` described in its system message.

    `has_system`: the template shows system messages; otherwise the first message carries the description.
    """
    plain = _merged(tuple(_plain(message) for message in messages))
    if not tools:
        return plain
    text = _INSTRUCTIONS.format(signatures="\n".join(_signature(tool) for tool in tools))
    if plain and plain[0].role in ("system", "developer"):
        return (replace(plain[0], content=f"{plain[0].content}\n\n{text}"), *plain[1:])
    if plain and not has_system and plain[0].role == "user":
        return (replace(plain[0], content=f"{text}\n\n{plain[0].content}"), *plain[1:])
    return (Message("system", text), *plain)


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if message.tool_calls:
        calls = [_call(call) for call in message.tool_calls]
        return Message(message.role, "\n".join([message.content, *calls] if message.content else calls), message.name)
    return message


def _merged(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Neighbouring tool results and user texts in one message: many templates want strict turns."""
    merged: list[Message] = []
    for message in messages:
        if merged and message.role == merged[-1].role == "user" and _has_response(merged[-1], message):
            merged[-1] = replace(merged[-1], content=f"{merged[-1].content}\n{message.content}")
        else:
            merged.append(message)
    return tuple(merged)


def _has_response(first: Message, second: Message) -> bool:
    return any(message.content.startswith("<tool_response>\n") for message in (first, second))


def _call(call: ToolCall) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'


def _signature(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)
