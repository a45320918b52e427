"""Words of somebody else on their way to a person: nothing in them may steer a terminal or begin a line of a log."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls (escape sequences), line separators, marks that turn the direction, half surrogates."""


def plain(text: str) -> str:
    """`text` with U+FFFD for what a terminal would obey."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def is_plain(text: str) -> bool:
    """Whether `plain` would leave it as it is."""
    return _UNPRINTABLE.search(text) is None
