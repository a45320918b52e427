"""Functions a model may call, and whether it must: one core form, spelled nested by chat and flat by responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from shoal.core.errors import InvalidRequest
from shoal.core.request import Constraint, Tool, ToolChoice
from shoal.server.wire.base import Name, Wire

Mode = Literal["none", "auto", "required"]


class Function(Wire):
    """`strict` is accepted either way: a call that tool_choice insists on is always held to the schema, and one the
    model makes on its own ("auto") never is."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Wire):
    type: Literal["function"]
    function: Function


class FunctionName(Wire):
    name: Name


class NamedChoice(Wire):
    type: Literal["function"]
    function: FunctionName


class FlatTool(Wire):
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(Wire):
    type: Literal["function"]
    name: Name


def to_tools(functions: Sequence[Function | FlatTool]) -> tuple[Tool, ...]:
    """InvalidRequest for two tools of one name."""
    counts = Counter(function.name for function in functions)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InvalidRequest(f"two tools are called {twice[0]!r}", "tools")
    return tuple(Tool(item.name, item.description or "", item.parameters or {}) for item in functions)


def to_choice(
    choice: Mode | NamedChoice | FlatChoice | None, parallel: bool | None, tools: tuple[Tool, ...]
) -> ToolChoice:
    """InvalidRequest for a choice that the tools do not allow."""
    if parallel is not None and not tools:
        raise InvalidRequest("parallel_tool_calls needs tools", "parallel_tool_calls")
    may = parallel is not False
    match choice:
        case None:
            return ToolChoice("auto" if tools else "none", None, may)
        case "none":
            return ToolChoice("none", None, may)
        case _ if not tools:
            raise InvalidRequest("tool_choice needs tools", "tool_choice")
        case "auto" | "required":
            return ToolChoice(choice, None, may)
        case NamedChoice():
            name = choice.function.name
        case FlatChoice():
            name = choice.name
    if name not in [tool.name for tool in tools]:
        raise InvalidRequest(f"no tool is called {name!r}", "tool_choice")
    return ToolChoice("named", name, may)


def check_exclusive(choice: ToolChoice, constraint: Constraint | None) -> None:
    if constraint is not None and choice.mode in ("required", "named"):
        raise InvalidRequest("a required tool call and a response format exclude each other", "tool_choice")
