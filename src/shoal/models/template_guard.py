"""Keeps control tokens that a user typed apart from those that the template writes.

A mark, one character that occurs nowhere in the conversation, is put inside every control-token text in the user's
strings, and wherever such a string could complete a control token together with its surroundings. The template then
renders as ever; control tokens are only recognised where no mark splits them, and the marks are taken out again.

What this does not protect against: a template that cuts pieces out of the middle of a user's string and joins the
rest, or that completes a control token around a key or a value of a tool's schema or arguments ("<" + value + ">").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from shoal.core.errors import InvalidRequest

_CANDIDATES = (*range(0x13000, 0x13430), *range(0xE000, 0xF900))
"""Egyptian hieroglyphs, then private use: a printable mark survives templates that print Python values."""


class Guard:
    """Marks strings of one conversation. `texts` are all of them, `control` the control tokens' texts."""

    def __init__(self, texts: Iterable[str], control: Collection[str]) -> None:
        used = set().union(*texts, *control)
        self.mark = next((chr(code) for code in _CANDIDATES if chr(code) not in used), "")
        if not self.mark:
            raise InvalidRequest("the conversation uses every character that could mark its text", "messages")
        self._patterns = _patterns(frozenset(text for text in control if text))

    def string(self, text: str, *, may_be_inside: bool = False) -> str:
        """`text` with marks. `may_be_inside`: a template might write it into the middle of a control token."""
        return self._insert(text, self._whole(text) | self._edges(text, may_be_inside))

    def value(self, value: Any) -> Any:
        """A JSON value with every string and key in it marked."""
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, dict):
            return {self.string(key): self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, (list, tuple)) else value

    def remove(self, text: str) -> str:
        return text.replace(self.mark, "")

    def _whole(self, text: str) -> set[int]:
        """Positions after the first character of each control token, overlapping ones included."""
        return {match.start() + 1 for match in self._patterns.whole.finditer(text)}

    def _edges(self, text: str, may_be_inside: bool) -> set[int]:
        """Positions that split a control token which begins or ends outside `text`, white space at its ends aside."""
        body = text.strip()
        start = text.find(body)
        positions = set()
        for length in range(1, min(len(body), self._patterns.longest - 1) + 1):
            if body[-length:] in self._patterns.prefixes:
                positions.add(start + len(body) - length + 1)
            if body[:length] in self._patterns.suffixes:
                positions.add(start + length - 1)
        if may_be_inside and body and self._patterns.is_inside(body):
            positions.add(start)
        return positions

    def _insert(self, text: str, positions: set[int]) -> str:
        if not positions:
            return text
        cuts = [0, *sorted(positions), len(text)]
        return self.mark.join(text[begin:end] for begin, end in pairwise(cuts))


class _Patterns:
    def __init__(self, control: frozenset[str]) -> None:
        self.whole = re.compile("(?=" + "|".join(map(re.escape, sorted(control))) + ")" if control else "(?!)")
        self.prefixes = {text[:length] for text in control for length in range(1, len(text))}
        self.suffixes = {text[length:] for text in control for length in range(1, len(text))}
        self.longest = max(map(len, control), default=1)
        self._joined = "\0".join(sorted(control))

    def is_inside(self, body: str) -> bool:
        return "\0" not in body and body in self._joined


@lru_cache(maxsize=16)
def _patterns(control: frozenset[str]) -> _Patterns:
    return _Patterns(control)
