"""Stop strings, found one character at a time, so that how the text was cut into tokens cannot change the answer.

Rules that stay true in this file:
- text given out never has to be taken back: what could still become a stop string is held;
- nothing else is held, and `flush` gives out everything;
- the work is linear in the text, whatever the stop strings are (Knuth, Morris and Pratt 1977).
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.errors import InvalidRequest


class StopScanner:
    """Cuts a stream of text at the first stop string to be completed; of several completed at once, at the longest."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops` may be empty; an empty string among them raises InvalidRequest."""
        if any(not stop for stop in stops):
            raise InvalidRequest("a stop string must not be empty; leave it out instead", "stop")
        self._patterns = [(stop, _borders(stop)) for stop in dict.fromkeys(stops)]
        self._matched = [0] * len(self._patterns)  # per pattern: length of its longest prefix that the text ends in
        self._held = ""

    def push(self, text: str, is_active: bool = True) -> tuple[str, bool]:
        """Text that is certain to belong to the answer, and whether a stop string ended it.

        While not `is_active` a completed stop string is text like any other. After True nothing may be pushed.
        """
        if not self._patterns or not text:
            return text, False
        self._held += text
        for position, character in enumerate(text, start=len(self._held) - len(text)):
            found = self._step(character)
            if found and is_active:
                return self._cut(position + 1 - found), True
        return self._cut(len(self._held) - max(self._matched)), False

    def flush(self) -> str:
        """Everything held: the text is over, so it became no stop string."""
        return self._cut(len(self._held))

    def _step(self, character: str) -> int:
        """Advance every pattern; length of the longest one completed here, else 0. A completed one begins anew."""
        found = 0
        for which, (stop, borders) in enumerate(self._patterns):
            matched = self._matched[which]
            while matched and stop[matched] != character:
                matched = borders[matched]
            matched += stop[matched] == character
            if matched == len(stop):
                found = max(found, matched)
                matched = borders[matched]
            self._matched[which] = matched
        return found

    def _cut(self, length: int) -> str:
        out, self._held = self._held[:length], self._held[length:]
        return out


def _borders(pattern: str) -> list[int]:
    """borders[k]: length of the longest proper prefix of pattern[:k] that is also its suffix."""
    borders = [0, 0]
    matched = 0
    for character in pattern[1:]:
        while matched and pattern[matched] != character:
            matched = borders[matched]
        matched += pattern[matched] == character
        borders.append(matched)
    return borders
