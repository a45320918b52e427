"""One tool call read character by character out of JSON, so that its arguments can be streamed before it is whole.

Only structure is checked while streaming (strings, brackets, keys); whether the arguments are valid JSON is known when
they end, as with every API that streams them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

Progress = Literal["more", "done", "bad"]

_SPACE = " \t\r\n"
_CLOSERS = {"{": "}", "[": "]"}
_ARGUMENTS = ("arguments", "parameters")


class Span:
    """Finds the end of one JSON value. "past" means the character before was the last one (numbers, true, null)."""

    __slots__ = ("_escaped", "_in_string", "_is_scalar", "_stack")

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._in_string = self._escaped = self._is_scalar = False

    def feed(self, char: str) -> Progress | Literal["past"]:
        if self._in_string:
            return self._string(char)
        if self._is_scalar:
            return "past" if char in ",}]" + _SPACE else "more" if char.isalnum() or char in "+-." else "bad"
        if char == '"':
            self._in_string = True
        elif char in _CLOSERS:
            self._stack.append(_CLOSERS[char])
        elif not self._stack:
            self._is_scalar = char in "-0123456789tfn"
            return "more" if self._is_scalar else "bad"
        elif char in "}]":
            return ("more" if self._stack else "done") if self._stack.pop() == char else "bad"
        return "more"

    def _string(self, char: str) -> Progress:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            return "more" if self._stack else "done"
        return "more"


class CallReader:
    """Reads `{"name": ..., "arguments": {...}}`, keys in any order, other keys ignored.

    name         the function's name, once it is certain that this is a call: its arguments have begun or it is whole.
    take()       argument text not yet taken; empty before `name` is there.
    leftover     characters read since, which are neither name nor arguments: to give back if the call breaks off.
    """

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self._accepts = accepts
        self._step: Callable[[str], Progress] = self._open
        self._span = Span()
        self._text = ""
        self._key = ""
        self._name: str | None = None
        self._arguments = ""
        self._has_arguments = self._is_streaming = False
        self.name: str | None = None
        self.leftover = ""

    def feed(self, char: str) -> Progress:
        was_streaming = self._is_streaming
        progress = self._step(char)
        if progress != "bad" and not was_streaming and not self._is_streaming:
            self.leftover += char
        if self._name is not None and self._has_arguments and self.name is None:
            self.name, self.leftover = self._name, ""
        return progress

    def take(self) -> str:
        if self.name is None:
            return ""
        text, self._arguments = self._arguments, ""
        return text

    # each step reads one character and sets the next step

    def _open(self, char: str) -> Progress:
        return self._expect(char, {"{": self._key_start})

    def _key_start(self, char: str) -> Progress:
        if char == "}":
            return self._close(char)
        if char in _SPACE:
            return "more"
        self._span, self._text, self._step = Span(), "", self._key_text
        return self._key_text(char) if char == '"' else "bad"

    def _key_text(self, char: str) -> Progress:
        self._text += char
        if self._span.feed(char) == "done":
            self._key, self._step = str(_loads(self._text)), self._colon
        return "more"

    def _colon(self, char: str) -> Progress:
        return self._expect(char, {":": self._value_start})

    def _value_start(self, char: str) -> Progress:
        if char in _SPACE:
            return "more"
        if self._key in _ARGUMENTS and self._has_arguments:
            return "bad"
        self._is_streaming = self._key in _ARGUMENTS and char == "{"
        self._has_arguments |= self._is_streaming
        self._span, self._text, self._step = Span(), "", self._value
        return self._value(char)

    def _value(self, char: str) -> Progress:
        progress = self._span.feed(char)
        if progress == "past":
            return self._after(char) if self._finish_value() else "bad"
        if progress != "bad" and self._is_streaming:
            self._arguments += char
        elif progress != "bad":
            self._text += char
        return "more" if progress == "more" or (progress == "done" and self._finish_value()) else "bad"

    def _finish_value(self) -> bool:
        self._step = self._after
        if self._is_streaming:
            self._is_streaming = False
        elif self._key in _ARGUMENTS:
            value = _loads(self._text)
            self._arguments = value if isinstance(value, str) else "{}" if value is None else self._text
            self._has_arguments = True
        elif self._key == "name":
            value = _loads(self._text)
            if self._name is not None or not isinstance(value, str) or not self._accepts(value):
                return False
            self._name = value
        return True

    def _after(self, char: str) -> Progress:
        return self._close(char) if char == "}" else self._expect(char, {",": self._key_start})

    def _close(self, char: str) -> Progress:
        if self._name is None:
            return "bad"
        if not self._has_arguments:
            self._has_arguments, self._arguments = True, "{}"
        return "done"

    def _expect(self, char: str, steps: dict[str, Callable[[str], Progress]]) -> Progress:
        if char in _SPACE:
            return "more"
        if char not in steps:
            return "bad"
        self._step = steps[char]
        return "more"


def _loads(text: str) -> Any:
    """The value, or None for text that is no JSON; models write bare newlines into strings, so those pass."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
