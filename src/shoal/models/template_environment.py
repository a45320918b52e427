"""The Jinja environment chat templates are written for: transformers' globals, filters and settings, in a sandbox.

Bounded: each `range`, all ranges of one rendering together, repetition and powers, and the size of the output.
What this does not protect against: a template that loops over the conversation many levels deep or doubles a string
in a loop; templates come with the weights one chose to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT_CHARS = 16 * 2**20
"""A rendered conversation; the longest contexts of today are about 4 M characters."""

MAX_RANGE_TOTAL = 100_000
"""Numbers that all `range` calls of one rendering may yield; templates count messages, in tens."""

MAX_REPEATED_CHARS = 2**20


class TemplateRefusal(Exception):
    """The template itself said no (`raise_exception`), or ran over a bound. The text is for the client."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training; for inference its body is all there is to it."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Inheritance because Jinja's sandbox has no other hook for operators."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise TemplateRefusal("the chat template formats with %, which is not allowed")
        if operator == "**" and abs(right) > 64:
            raise TemplateRefusal("the chat template raises to a power above 64")
        if operator == "*" and _repeated(left, right) > MAX_REPEATED_CHARS:
            raise TemplateRefusal(f"the chat template repeats something to more than {MAX_REPEATED_CHARS} items")
        return super().call_binop(context, operator, left, right)


def _repeated(left: Any, right: Any) -> int:
    """Length of `left * right` where one of them is a sequence."""
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
            return len(sequence) * max(times, 0)
    return 0


def environment(now: Callable[[], datetime]) -> jinja2.Environment:
    """An environment for chat templates; `now` answers `strftime_now`. `range` comes with each rendering."""

    def strftime_now(pattern: str) -> str:
        return now().strftime(pattern)

    built = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    built.filters["tojson"] = to_json
    built.globals |= {"raise_exception": _refuse, "strftime_now": strftime_now}
    return built


def budgeted_range() -> Callable[..., range]:
    """A `range` whose calls together yield at most MAX_RANGE_TOTAL numbers."""
    left = MAX_RANGE_TOTAL

    def bounded(*bounds: int) -> range:
        nonlocal left
        numbers = range(*bounds)
        left -= len(numbers)
        if left < 0:
            raise TemplateRefusal(f"the chat template loops over more than {MAX_RANGE_TOTAL} numbers")
        return numbers

    return bounded


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' `tojson`: no HTML escapes. Hieroglyphs stay as they are even in ASCII: the guard's mark is one."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return re.sub("[^\x00-\x7f\U00013000-\U0001342f]", _escape, text) if ensure_ascii else text


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
