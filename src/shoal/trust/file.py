"""A receipt as a file: JSON as the API gives it, an answer of the API with such a receipt in it, or its plain bytes.

{"receipt": base64 of the canonical bytes, "opening": base64 or absent}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.core.errors import InvalidRequest, RemoteError
from shoal.core.receipt import Signed
from shoal.trust.receipt import MAX_OPENING_BYTES, read_opening, read_receipt, write_opening, write_receipt

MAX_FILE_BYTES = 2 * MAX_OPENING_BYTES
MAX_RECEIPTS = 4096
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


def read_file(path: Path) -> list[Signed]:
    """Every receipt in a file, at least one. InvalidRequest says what is wrong with the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror or error}", "file") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidRequest(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found more", "file")
    try:
        return parse_file(data)
    except RemoteError as error:
        raise InvalidRequest(f"{path}: {error}", "file") from error


def parse_file(data: bytes) -> list[Signed]:
    """RemoteError for bytes that hold no receipt."""
    if not data.strip():
        raise RemoteError("expected a receipt, found an empty file")
    if data.lstrip()[:1] not in (b"{", b"["):
        return [Signed(read_receipt(data))]
    try:
        found = [from_json(value) for value in _receipts(json.loads(data), 0)]
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"expected JSON, found something else: {error}") from error
    if not found:
        raise RemoteError('expected "receipt" somewhere in this JSON, found none; was the answer asked for with one?')
    return found


def _receipts(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Objects that hold a receipt, wherever they are in an answer."""
    if depth > 8:
        return
    if isinstance(value, list):
        for item in value[:MAX_RECEIPTS]:
            yield from _receipts(item, depth + 1)
    elif isinstance(value, dict):
        if isinstance(value.get(_KEY), str):
            yield value
        else:
            for item in value.values():
                yield from _receipts(item, depth + 1)


def shown_otherwise(path: Path, signed: Signed) -> list[str]:
    """What is wrong with the text beside the receipt, in a file that `read_file` read: an answer of the API."""
    data = path.read_bytes()
    texts = _answer_texts(json.loads(data)) if data.lstrip()[:1] == b"{" else []
    if signed.opening is None:
        return ["this file shows an answer, and no opening to compare it with"] if texts else []
    signed_texts = [output.text for output in signed.opening.outputs]
    if not texts or texts == signed_texts:
        return []
    return ["the text of the answer in this file is not the one that was signed"]


def _answer_texts(value: dict[str, Any]) -> list[str]:
    """Of a chat completion, a completion or a response; nothing for any other JSON."""
    try:
        if "choices" in value:
            return [
                item["message"]["content"] or "" if "message" in item else item["text"] for item in value["choices"]
            ]
        parts = [part["text"] for item in value["output"] if item["type"] == "message" for part in item["content"]]
        return ["".join(parts)]
    except (KeyError, TypeError):
        return []


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
