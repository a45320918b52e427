"""What a file says beside a receipt, against what was signed: the answer's id, its model and its counts of tokens.

What is absent or null is not compared. Not signed, so never compared: other keys, and costs under "shoal".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shoal.core.receipt import Receipt, Signed


def contradictions(signed: Signed, shown: Mapping[str, Any]) -> Iterator[str]:
    """Of an answer of the API, or of the object that the receipt stands in."""
    receipt = signed.receipt
    expected = {"request_id": {receipt.request_id}, "model": _models(signed)}
    if "choices" in shown or "output" in shown:  # elsewhere an id may be the file's own
        expected["id"] = {receipt.request_id}
    for name, right in expected.items():
        if (value := shown.get(name)) is not None and value not in list(right):
            yield f"the {name} in this file is {value!r:.80}, and what was signed is {' or '.join(map(repr, right))}"
    yield from _counts(receipt, shown.get("usage"))


def _models(signed: Signed) -> set[str]:
    """The name an answer goes by: its adapter's, where one was asked for."""
    request = signed.opening and signed.opening.request
    if request and request.adapter:
        return {request.adapter}
    return {signed.receipt.model.name} | ({request.model} if request else set())


def _counts(receipt: Receipt, shown: object) -> Iterator[str]:
    if shown is None:
        return
    if not isinstance(shown, dict):
        yield "the usage in this file has another form than the API gives, so it cannot be compared"
        return
    usage = receipt.usage
    prompt, output = usage.prompt_tokens, usage.completion_tokens
    signed = {"prompt_tokens": prompt, "input_tokens": prompt, "completion_tokens": output, "output_tokens": output}
    for name, right in {**signed, "total_tokens": prompt + output}.items():
        if (value := shown.get(name)) is not None and value != right:
            yield f"usage in this file says {name} {value!r:.80}, and what was signed is {right}"
