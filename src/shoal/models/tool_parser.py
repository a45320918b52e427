"""Splits what a model writes into plain text and tool calls, while it is being written.

Rules that stay true in this file:
- the result does not depend on how the text is cut into pushes;
- nothing is lost: text is held back only while it could still begin a call; what turns out to be no call comes out as
  plain text; only markers, and the white space in front of them, disappear;
- a call's first delta has its id and name, the following ones its arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from shoal.core.chunk import ToolCallDelta
from shoal.models.tool_json import CallReader


@dataclass(frozen=True, slots=True)
class Dialect:
    """How calls are written: `open` + `before` + object (+ `between` + object)* + `close`, white space anywhere.

    at_start   the whole answer is calls (after an optional `open`), or there are none; and only names of known
               functions count, because nothing else tells a call from a JSON answer.
    """

    open: str
    close: str = ""
    before: str = ""
    between: str = ""
    at_start: bool = False


HERMES = Dialect("<tool_call>", close="</tool_call>")
MISTRAL = Dialect("[TOOL_CALLS]", close="]", before="[", between=",")
LLAMA3 = Dialect("<|python_tag|>", between=";", at_start=True)


class ToolCallParser:
    """Parser of one answer. `seed` makes the call ids; `names` are the functions the model was told of."""

    def __init__(self, dialect: Dialect, seed: str, names: Collection[str] = ()) -> None:
        self._dialect = dialect
        self._seed = seed
        self._names = frozenset(names)
        self._step = self._start if dialect.at_start else self._text
        self._held = ""
        self._reader = self._new_reader()
        self._visible: list[str] = []
        self._deltas: list[ToolCallDelta] = []
        self._index = -1
        self.num_calls = 0
        """Calls begun so far: their name is out."""
        self.num_complete = 0
        """Calls that are whole. A caller that allows one call only can stop at the first."""

    def push(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Plain text and call deltas that `text` completes."""
        for char in text:
            self._step(char)
        return self._out()

    def finish(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """What was still held back. The answer has ended."""
        if self._step == self._object and self.num_calls > self.num_complete:
            self._visible.append(self._reader.leftover)
        elif self._step != self._after and (self._held.strip() or not self.num_calls):
            self._visible.append(self._held)
        self._held, self._step = "", self._plain
        return self._out()

    def _out(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        text, deltas = "".join(self._visible), tuple(self._deltas)
        self._visible, self._deltas = [], []
        return text, deltas

    def _new_reader(self) -> CallReader:
        return CallReader(self._names.__contains__ if self._dialect.at_start else bool)

    # each step takes one character and sets the next step; `_held` is what may have to come out as text

    def _plain(self, char: str) -> None:
        self._visible.append(char)

    def _text(self, char: str) -> None:
        self._held += char
        while not self._dialect.open.startswith(self._held.lstrip()):
            self._visible.append(self._held[0])
            self._held = self._held[1:]
        if self._held.lstrip() == self._dialect.open:
            self._step = self._before if self._dialect.before else self._object

    def _start(self, char: str) -> None:
        self._held += char
        begun = self._held.strip()
        if begun.removeprefix(self._dialect.open).lstrip() == "{":
            self._held = self._held[:-1]
            self._step = self._object
            self._object(char)
        elif not self._dialect.open.startswith(begun):
            self._give_back("")

    def _before(self, char: str) -> None:
        if char == self._dialect.before:
            self._held += char
            self._step = self._object
        elif char.isspace():
            self._held += char
        else:
            self._give_back(char)

    def _object(self, char: str) -> None:
        progress = self._reader.feed(char)
        if progress == "bad":
            self._break_off(char)
            return
        self._held += char
        self._emit()
        if progress == "done":
            self.num_complete += 1
            self._reader, self._held, self._step = self._new_reader(), "", self._after

    def _after(self, char: str) -> None:
        self._held += char
        tail = self._held.lstrip()
        if tail and tail == self._dialect.between:
            self._step = self._object
        elif tail and tail == self._dialect.close:
            self._held, self._step = "", self._text
        elif not self._dialect.close.startswith(tail):
            self._give_back("")

    def _emit(self) -> None:
        """Send what the reader knows: the name once, then arguments."""
        if self._reader.name is not None and self.num_calls == self.num_complete:
            self._index += 1
            self.num_calls += 1
            digest = hashlib.sha256(f"{self._seed}/{self._index}".encode()).hexdigest()
            self._deltas.append(ToolCallDelta(self._index, f"call_{digest[:24]}", self._reader.name))
        if arguments := self._reader.take():
            self._append(arguments)

    def _append(self, arguments: str) -> None:
        last = self._deltas[-1] if self._deltas else None
        if last is not None and last.name is None:
            arguments = self._deltas.pop().arguments + arguments
        self._deltas.append(ToolCallDelta(self._index, arguments=arguments))

    def _break_off(self, char: str) -> None:
        """The JSON went wrong: all of it is text, or the rest of it where the call was already on its way."""
        if self.num_calls > self.num_complete:
            self._held = self._reader.leftover
            self.num_complete += 1
        self._reader = self._new_reader()
        self._give_back(char)

    def _give_back(self, char: str) -> None:
        """What was held is text after all, and `char` is read anew: it may begin the next marker."""
        held, self._held = self._held, ""
        self._step = self._plain if self._dialect.at_start else self._text
        if char:
            self._visible.append(held)
            self._step(char)
            return
        self._visible.append(held[:-1])
        self._step(held[-1])
