"""When two answers say the same: the part that counts, in one spelling. For votes; judges read answers as they are."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_MARKED = re.compile(
    r"(?:####|\\boxed\{|<answer>|\banswer(?:\s+is\b|\s*[:=])\s*:?)\s*(?P<answer>[^\n{}<]+)", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?%?")
_RESULT = re.compile(r"=|\bis\b", re.IGNORECASE)
_EDGES = " \t\n\r.,;:!?\"'`*_()[]{}$"


def final_answer(text: str) -> str:
    """What a long answer comes to: behind its last marker ("answer:", "####", \\boxed), else its last line."""
    marked = list(_MARKED.finditer(text))
    if marked:
        return marked[-1]["answer"].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def normalise(text: str) -> str:
    """One spelling for equal answers: numbers as reduced fractions, words in lower case without edges."""
    before, plain = None, text
    while plain != before:  # taking off edges or folding may uncover more of them
        before = plain
        plain = " ".join(unicodedata.normalize("NFKC", plain).casefold().strip(_EDGES).split())
    number = _number(plain)
    return plain if number is None else str(number)


def key(text: str) -> str:
    """What votes are counted by: the final answer normalised; where it, or what follows its last "=" or "is", holds
    exactly one number, that number."""
    final = final_answer(text)
    for part in (final, _RESULT.split(final)[-1]):
        numbers = _NUMBER.findall(part)
        if len(numbers) == 1:
            return normalise(numbers[0])
    return normalise(final)


def _number(text: str) -> Fraction | None:
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > 60:
        return None
    digits = text.replace("$", "").replace(",", "")
    try:
        return Fraction(digits[:-1]) / 100 if digits.endswith("%") else Fraction(digits)
    except (ValueError, ZeroDivisionError):
        return None
