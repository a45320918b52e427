"""A receipt as a file: JSON as the API gives it, an answer of the API with such a receipt in it, or its plain bytes.

{"receipt": base64 of the canonical bytes, "opening": base64 or absent}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shoal.core.errors import InvalidRequest, RemoteError
from shoal.core.receipt import Signed
from shoal.trust.receipt import MAX_OPENING_BYTES, read_opening, read_receipt, write_opening, write_receipt
from shoal.trust.stated import contradictions

MAX_FILE_BYTES = 2 * MAX_OPENING_BYTES
MAX_RECEIPTS = 4096
MAX_DEPTH = 8
_KEY = "receipt"


def to_json(signed: Signed) -> dict[str, str]:
    """As the API and files have it."""
    shown = {_KEY: _text(write_receipt(signed.receipt))}
    return shown if signed.opening is None else {**shown, "opening": _text(write_opening(signed.opening))}


def from_json(value: object) -> Signed:
    """RemoteError for anything but what `to_json` gives (other keys, as the API adds them, are left alone)."""
    if not isinstance(value, dict) or not isinstance(value.get(_KEY), str):
        raise RemoteError('expected an object with "receipt" in base64')
    opening = value.get("opening")
    return Signed(read_receipt(_bytes(value[_KEY])), None if opening is None else read_opening(_bytes(opening)))


@dataclass(frozen=True, slots=True)
class Shown:
    """A receipt as a file has it, and what is wrong with the answer that the file shows beside it."""

    signed: Signed
    problems: tuple[str, ...] = ()


def read_file(path: Path) -> list[Signed]:
    """Every receipt in a file, at least one. InvalidRequest says what is wrong with the file."""
    return [shown.signed for shown in read_answers(path)]


def read_answers(path: Path) -> list[Shown]:
    """As `read_file`; `-` is standard input. It is read once: what is judged is what was read, also of a pipe."""
    try:
        with open(0, "rb", closefd=False) if str(path) == "-" else path.open("rb") as file:  # 0: standard input
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path}: {getattr(error, 'strerror', None) or error}", "file") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidRequest(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found more", "file")
    try:
        return parse_answers(data)
    except RemoteError as error:
        raise InvalidRequest(f"{path}: {error}", "file") from error


def parse_file(data: bytes) -> list[Signed]:
    """RemoteError for bytes that hold no receipt."""
    return [shown.signed for shown in parse_answers(data)]


def parse_answers(data: bytes) -> list[Shown]:
    """As `parse_file`, with what is wrong with the answers around the receipts."""
    if not data.strip():
        raise RemoteError("expected a receipt, found an empty file")
    if data.lstrip()[:1] not in (b"{", b"["):
        return [Shown(Signed(read_receipt(data)))]
    try:
        seen = _Seen()
        seen.look(json.loads(data, object_pairs_hook=_unique), _Around(), 0)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"expected JSON, found something else: {error}") from error
    if not seen.found:
        raise RemoteError('expected "receipt" somewhere in this JSON, found none; was the answer asked for with one?')
    return [_shown(from_json(value), around, seen.unsigned()) for value, around in seen.found[:MAX_RECEIPTS]]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Another reader may take the first of two values where this one takes the last."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return value


@dataclass(frozen=True, slots=True)
class _Around:
    """What a receipt stands in: the answer, and the object whose words are about it, often the same."""

    answer: dict[str, Any] | None = None
    words: dict[str, Any] | None = None


@dataclass(slots=True)
class _Seen:
    """Objects that hold a receipt, each with what it stands in; and the answers."""

    found: list[tuple[dict[str, Any], _Around]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def look(self, value: Any, around: _Around, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        if isinstance(value, list):
            for item in value:
                self.look(item, around, depth + 1)
        elif isinstance(value, dict):
            if isinstance(value.get("choices"), list) or isinstance(value.get("output"), list):
                self.answers.append(value)
                around = replace(around, answer=value)
            if isinstance(value.get(_KEY), str):
                self.found.append((value, around if around.words else replace(around, words=value)))
            for key, item in value.items():
                self.look(item, replace(around, words=value if key == _KEY else None), depth + 1)

    def unsigned(self) -> bool:
        """Whether the file shows an answer that no receipt stands in."""
        signed = {id(around.answer) for _, around in self.found}
        return any(id(answer) not in signed for answer in self.answers)


def _shown(signed: Signed, around: _Around, has_unsigned: bool) -> Shown:
    problems = ["this file shows an answer without a receipt of its own"] if has_unsigned else []
    if around.answer is not None:
        problems += _differences(signed, around.answer)
    for words in (around.answer, around.words):
        problems += [] if words is None else contradictions(signed, words)
    return Shown(signed, tuple(dict.fromkeys(problems)))


def _differences(signed: Signed, answer: dict[str, Any]) -> Iterator[str]:
    """Between what was signed and a chat completion, completion or response. One that shows no text differs in none."""
    try:
        shown = _said(answer)
    except (KeyError, TypeError, AttributeError):
        yield "the answer in this file has another form than the API gives, so it cannot be compared"
        return
    if not shown:
        return
    if signed.opening is None:
        yield "this file shows an answer, and no opening to compare it with"
        return
    made = [
        (output.text, [(call.name, call.arguments) for call in output.tool_calls]) for output in signed.opening.outputs
    ]
    if shown != made:
        yield "the text of the answer in this file is not the one that was signed"


def _said(answer: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Text and tool calls of each choice. KeyError, TypeError, AttributeError for what is no answer of the API."""
    if "choices" in answer and "output" in answer:
        raise TypeError("two answers in one")
    if "choices" in answer:
        return [_choice(item) for item in answer["choices"] if not _is_silent(item)]
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    calls = [(item["name"], item["arguments"]) for item in answer["output"] if item["type"] == "function_call"]
    return [("".join(part["text"] for part in parts), calls)] if answer["output"] else []


def _is_silent(item: dict[str, Any]) -> bool:
    """Of a stream's last event, which brings the receipt and no more of the answer: only there nothing has ended it."""
    return item.get("finish_reason", "") is None and (item.get("delta"), item.get("text")) in (({}, None), (None, ""))


def _choice(item: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    if "message" not in item:
        return item["text"], []
    message = item["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return message["content"] or "", calls


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: object) -> bytes:
    try:
        if isinstance(text, str):
            data = base64.b64decode(text, validate=True)
            if _text(data) == text:
                return data
    except (binascii.Error, ValueError):
        pass
    raise RemoteError("expected base64, found something else")
