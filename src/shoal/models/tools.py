"""Which way a model writes tool calls: told from its chat template, turned into a grammar and into a parser.

Formats: "hermes" (Qwen, Hermes: `<tool_call>{json}</tool_call>`), "llama3" (`{"name", "parameters"}`, maybe after
`<|python_tag|>`), "mistral" (`[TOOL_CALLS] [{json}, ...]`) and "generic": the template knows no tools, or writes calls
in a way this file cannot read, so they are described in text (see tools_prompt) and called as in "hermes".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import jinja2
from jinja2 import meta

from shoal.core.errors import BadWeights, InvalidRequest
from shoal.core.request import Constraint, Tool, ToolChoice
from shoal.models.template_environment import environment
from shoal.models.tool_parser import HERMES, LLAMA3, MISTRAL, Dialect, ToolCallParser

if TYPE_CHECKING:
    from shoal.models.tokenizer import Tokenizer

Kind = Literal["hermes", "llama3", "mistral", "generic"]

_DIALECTS: dict[Kind, Dialect] = {"hermes": HERMES, "llama3": LLAMA3, "mistral": MISTRAL, "generic": HERMES}

_GUIDANCE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as Python writes it, which is what templates show models; a small model given free white space never stops."""


def tool_kind(template: str | None) -> Kind:
    """The format a template's own text shows. BadWeights for a template that is not Jinja."""
    if template is None or "tools" not in _variables(template):
        return "generic"
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return "hermes"
    if "[TOOL_CALLS]" in template and "[ARGS]" not in template:
        return "mistral"
    if "<|start_header_id|>" in template and '"parameters": ' in template:
        return "llama3"
    return "generic"


def has_native_tools(template: str | None) -> bool:
    """Whether the template describes tools itself, in a format this file reads."""
    return tool_kind(template) != "generic"


def _variables(template: str) -> set[str]:
    try:
        return meta.find_undeclared_variables(environment(datetime.now).parse(template))
    except jinja2.TemplateSyntaxError as error:
        raise BadWeights("chat template", f"line {error.lineno}", "a Jinja template", str(error)) from error


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """`marker_ids` are markers that are tokens of their own; `show` those of them that are control tokens.

    Give `show` to the `Detokenizer`, or the parser never sees these markers.
    """

    kind: Kind
    marker_ids: Mapping[str, int]
    show: frozenset[int]

    @staticmethod
    def detect(template: str | None, tokenizer: Tokenizer) -> ToolFormat:
        kind = tool_kind(template)
        dialect = _DIALECTS[kind]
        ids = {text: tokenizer.token_id(text) for text in (dialect.open, dialect.close)}
        verbatim = tokenizer.vocabulary.verbatim
        markers = {text: token for text, token in ids.items() if token is not None and token in verbatim}
        return ToolFormat(kind, markers, frozenset(token for token in markers.values() if tokenizer.is_special(token)))

    def parser(self, seed: str, tools: tuple[Tool, ...]) -> ToolCallParser:
        """A parser for one answer; `seed` (request id and choice) makes its call ids."""
        return ToolCallParser(_DIALECTS[self.kind], seed, [tool.name for tool in tools])

    def grammar(self, tools: tuple[Tool, ...], choice: ToolChoice) -> Constraint | None:
        """A Lark grammar (llguidance's dialect) that leaves nothing but calls with schema-valid arguments.

        None for "auto" and "none". InvalidRequest (param "tool_choice") where no tool can be called.
        """
        if choice.mode in ("auto", "none"):
            return None
        allowed = [tool for tool in tools if choice.mode == "required" or tool.name == choice.name]
        if not allowed:
            wanted = repr(choice.name) if choice.mode == "named" else "a call"
            raise InvalidRequest(f"tool_choice wants {wanted}, and tools has none such", "tool_choice")
        rules = [f"call_{index}: {self._call(tool)}" for index, tool in enumerate(allowed)]
        calls = "call: " + " | ".join(f"call_{index}" for index in range(len(allowed)))
        return Constraint("lark", "\n".join([self._start(choice.parallel), calls, *rules]) + "\n")

    def _start(self, parallel: bool) -> str:
        if self.kind == "mistral":
            more = ' (", " call)*' if parallel else ""
            return f'start: {self._marker("[TOOL_CALLS]")} " "? "[" call{more} "]"'
        separator = "; " if self.kind == "llama3" else "\n"
        return f"start: call ({_quoted(separator)} call)*" if parallel else "start: call"

    def _call(self, tool: Tool) -> str:
        key = "parameters" if self.kind == "llama3" else "arguments"
        head = f'{{"name": {json.dumps(tool.name)}, "{key}": '
        body = f"%json {json.dumps(_schema(tool.parameters))}"
        if self.kind in ("llama3", "mistral"):
            return f'{_quoted(head)} {body} "}}"'
        opened, closed = self._marker("<tool_call>"), self._marker("</tool_call>")
        return f"{opened} {_quoted(chr(10) + head)} {body} {_quoted('}' + chr(10))} {closed}"

    def _marker(self, text: str) -> str:
        """A marker as its token. llguidance takes any added token for a control token, whose bytes match no text."""
        token = self.marker_ids.get(text)
        if token is None:
            return _quoted(text)
        return f"<[{token}]>" if token in self.show else f"(<[{token}]> | {_quoted(text)})"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """An object's schema. OpenAI: a function without parameters takes an empty object."""
    empty = {"properties": {}, "additionalProperties": False}
    return {"type": "object", **(parameters or empty), "x-guidance": _GUIDANCE}
