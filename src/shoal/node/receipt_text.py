"""Receipts for people and scripts. What others wrote is shown without control characters."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shoal.core.decoding import compact
from shoal.core.receipt import Output, Part, Receipt, Signed
from shoal.core.text import plain
from shoal.trust.inspect import signer

COLUMNS = ("number", "signed at", "request", "model", "tokens", "others")
"""Of `row`; others: how many of them took part."""


def row(receipt: Receipt) -> tuple[str, ...]:
    """For people."""
    *shown, others = plain_row(receipt).values()
    return (*(plain(str(value)) for value in shown), str(others or ""))


def plain_row(receipt: Receipt) -> dict[str, str | int]:
    """For scripts, by column: counts are numbers."""
    others = {part.provider for part in receipt.parts} - {"local"}
    tokens = sum(output.num_tokens for output in receipt.outputs)
    values = (receipt.sequence, _time(receipt.created), plain(receipt.request_id), plain(receipt.model.name))
    return dict(zip(COLUMNS, (*values, tokens, len(others)), strict=True))


def describe(signed: Signed) -> Iterator[str]:
    """Line by line."""
    receipt, model = signed.receipt, signed.receipt.model
    yield f"signed by    {signer(receipt)}, its number {receipt.sequence}, {_time(receipt.created)}"
    yield f"answer to    {plain(receipt.request_id)}"
    if model.weights:
        yield f"model        {plain(model.name)} ({plain(model.quantization)}), weights {model.weights.hex()}"
        yield f"computed on  {plain(model.device)}: {plain(model.kernels)}, keys and values {plain(model.kv)}"
    else:
        yield f"model        {plain(model.name)}, weights not named: not computed by the signer's engine alone"
    if model.adapter:
        yield f"adapter      {model.adapter.hex()}"
    yield f"sampling     {_sampling(receipt)}"
    if receipt.approximation is not None:
        left_out = [f"{name} {value}" for name, value in compact(receipt.approximation).items()]
        yield f"approximate  {', '.join(left_out)}"
    for output in receipt.outputs:
        yield f"choice {output.choice}     {_output(output)}"
    for part in receipt.parts:
        yield f"made by      {plain(part_in_words(part))}"
    yield f"usage        {receipt.usage.prompt_tokens} tokens in, {receipt.usage.completion_tokens} out"
    if signed.opening is None:
        yield "opening      none: this says nothing of prompt or answer"
    else:
        yield f"opening      prompt of {len(signed.opening.prompt)} tokens, answer, fingerprints; do not pass it on"


def part_in_words(part: Part) -> str:
    """Who made what of an answer."""
    what = f"tokens {part.first} to {part.first + part.count - 1}" if part.count else "text without token ids"
    own = ", with its own receipt" if part.receipt else "" if part.provider == "local" else ", who signed nothing"
    return f"choice {part.choice}: {what} by {part.provider}{own}"


def as_plain(signed: Signed) -> dict[str, Any]:
    """Every field as JSON has it; bytes in base64."""
    found: dict[str, Any] = _texts(compact(signed))
    return found


def _texts(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): _texts(part) for key, part in value.items()}
    return [_texts(part) for part in value] if isinstance(value, list) else value


def _output(output: Output) -> str:
    marks = output.num_tokens - output.begins
    covered = f"fingerprints of {marks} of them" if output.fingerprints else "no fingerprints"
    return f"{output.num_tokens} tokens, ended by {output.finish_reason}, {covered}"


def _sampling(receipt: Receipt) -> str:
    numbers = [f"{name} {value}" for name, value in compact(receipt.sampling).items()]
    return ", ".join(numbers) or "the defaults"


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
