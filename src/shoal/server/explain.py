"""Validation errors in words: which parameter, what was expected, what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shoal.core.errors import InvalidRequest

MAX_MESSAGE = 500

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


def invalid(error: ValidationError, value: Any) -> InvalidRequest:
    """The one error to report: the deepest; of them one whose type is right, for that branch of a union was meant."""
    details = error.errors(include_url=False, include_context=False)
    located = [(path_of(detail, value), detail) for detail in details[:256]]
    path, detail = max(located, key=lambda item: (len(item[0]), not item[1]["type"].endswith("_type")))
    return _describe(_dotted(path), path, detail)


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


def _describe(param: str, path: Sequence[str | int], detail: ErrorDetails) -> InvalidRequest:
    last = str(path[-1])[:64] if path else ""
    match detail["type"]:
        case "extra_forbidden" if last in ADVICE:
            return InvalidRequest(f"{param} is not supported: {ADVICE[last]}", param, "unsupported_parameter")
        case "extra_forbidden":
            return InvalidRequest(f"unknown parameter: {param!r}", param, "unknown_parameter")
        case "missing":
            return InvalidRequest(f"missing required parameter: {param!r}", param, "missing_required_parameter")
    code = "invalid_type" if detail["type"].endswith("_type") else "invalid_value"
    message = detail["msg"][:MAX_MESSAGE]  # pydantic quotes what came, however long it is
    return InvalidRequest(f"{param or 'body'}: {message}{_found(detail['input'])}", param or None, code)


def _found(value: Any) -> str:
    match value:
        case str() if len(value) <= 40:
            return f", found {value!r}"
        case None | bool() | float():
            return f", found {value!r}"
        case int() if abs(value) < 10**18:
            return f", found {value}"
        case str():
            return f", found a string of {len(value)} characters"
    return f", found {type(value).__name__}"


def _dotted(path: Sequence[str | int]) -> str:
    """`messages[0].content`, as OpenAI writes it."""
    text = ""
    for step in path[:16]:
        text += f"[{step}]" if isinstance(step, int) else f".{step[:64]}" if text else step[:64]
    return text
