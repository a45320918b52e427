"""Validation errors in words: which parameter, what was expected, what came."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shoal.core.errors import InvalidRequest

MAX_MESSAGE = 500

_COUNTED = re.compile(r"(?:List|String|Dictionary) should (?:have )?(.+?)(?: after validation, not .*)?")

ADVICE = {
    "functions": "pass `tools` instead",
    "function_call": "pass `tool_choice` instead",
    "audio": "this server answers with text only",
    "prediction": "speculation is the server's own choice",
    "web_search_options": "there is no web search here; offer a function in `tools`",
    "reasoning": "no served model has a reasoning effort",
    "reasoning_effort": "no served model has a reasoning effort",
    "suffix": "fill-in-the-middle is not offered",
    "conversation": "pass `previous_response_id` instead",
    "prompt_cache_key": "prompts that begin alike share a cache by themselves",
    "image_url": "content is text only",
    "input_audio": "content is text only",
    "file": "content is text only",
}
"""Known parameters of the API that are refused, and what to do about it."""


Located = tuple[list[str | int], ErrorDetails]


def invalid(error: ValidationError, value: Any) -> InvalidRequest:
    """The one error to report. Of a union's branches the one meant is the one whose type is right, or came furthest."""
    details = error.errors(include_url=False, include_context=False)
    located = [(path_of(detail, value), detail) for detail in details[:256]]
    path, detail = max(located, key=_rank)
    others = [other for at, other in located if at == path and _is_of_type(other)]
    return _describe(_dotted(path), path, [detail, *others] if _is_of_type(detail) else [detail])


def _rank(item: Located) -> tuple[bool, int, int]:
    path, detail = item
    return not _is_of_type(detail), len(path), path[-1] if path and isinstance(path[-1], int) else 0


def _is_of_type(detail: ErrorDetails) -> bool:
    """Whether it says no more than that the value is of a type which this branch does not read."""
    is_foreign = detail["type"] == "literal_error" and not isinstance(detail["input"], str)
    return is_foreign or detail["type"].endswith("_type")


def path_of(detail: ErrorDetails, value: Any) -> list[str | int]:
    """The error's location without the names pydantic gives to branches of a union: those are not in the data."""
    path: list[str | int] = []
    for position, step in enumerate(detail["loc"]):
        is_last = position == len(detail["loc"]) - 1
        if has_step(value, step):
            value = value[step]
        elif not (is_last and detail["type"] == "missing"):
            continue
        path.append(step)
    return path


def has_step(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _describe(param: str, path: Sequence[str | int], details: Sequence[ErrorDetails]) -> InvalidRequest:
    detail = details[0]
    last = str(path[-1])[:64] if path else ""
    match detail["type"]:
        case "extra_forbidden" if last in ADVICE:
            return InvalidRequest(f"{param} is not supported: {ADVICE[last]}", param, "unsupported_parameter")
        case "extra_forbidden":
            return InvalidRequest(f"unknown parameter: {param!r}", param, "unknown_parameter")
        case "missing":
            return InvalidRequest(f"missing required parameter: {param!r}", param, "missing_required_parameter")
    code = "invalid_type" if detail["type"].endswith("_type") else "invalid_value"
    expected = " or ".join(dict.fromkeys(map(_expected, details)))[:MAX_MESSAGE]  # pydantic quotes what came
    return InvalidRequest(f"{param or 'body'}: expected {expected}{_found(detail['input'])}", param or None, code)


def _expected(detail: ErrorDetails) -> str:
    """In JSON's words where pydantic's are Python's."""
    match detail["type"]:
        case "dict_type" | "model_type" | "model_attributes_type" | "dataclass_type":
            return "an object"
        case "list_type":
            return "an array"
        case "union_tag_not_found":
            return "an object with a type"
        case "union_tag_invalid":
            came, _, tags = detail["msg"].removeprefix("Input tag ").partition(" found using")
            return f"one of the types{tags.partition('expected tags:')[2]}, and not {came}"
        case "string_pattern_mismatch":
            return "a string that matches" + detail["msg"].partition("pattern")[2] + " (a pattern)"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return "a number " + detail["msg"].removeprefix("Input should be ")
    if (counted := _COUNTED.fullmatch(detail["msg"])) is not None:
        return counted[1]
    return detail["msg"].removeprefix("Input should be ")


def _found(value: Any) -> str:
    match value:
        case str() if len(value) <= 40:
            return f", found {value!r}"
        case None | bool() | float():
            return f", found {json.dumps(value)}"
        case int() if abs(value) < 10**18:
            return f", found {value}"
        case str():
            return f", found a string of {len(value)} characters"
        case list():
            return f", found an array of {len(value)}"
        case dict():
            return f", found an object of {len(value)} keys"
    return ", found a number of more digits"


def _dotted(path: Sequence[str | int]) -> str:
    """`messages[0].content`, as OpenAI writes it."""
    text = ""
    for step in path[:16]:
        text += f"[{step}]" if isinstance(step, int) else f".{step[:64]}" if text else step[:64]
    return text
