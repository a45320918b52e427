"""A peer's receipt on its way in: it is that peer's own, about this request and these tokens, or it is taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from shoal.core.chunk import Chunk
from shoal.core.receipt import Opening, Output, OutputOpening, Signed
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.trust.gather import Choice, Gathered
from shoal.trust.inspect import inspect
from shoal.trust.statement import essence

Blame = Callable[[str], None]
"""Told in words what did not hold."""


def accepting(generate: Generate, peer: bytes, blame: Blame) -> Generate:
    """Answers of the peer whose public key is `peer`. A receipt that does not hold is removed and `blame`d."""

    async def checked(request: Request) -> AsyncIterator[Chunk]:
        gathered = Gathered(request)
        async with closing(generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.index in gathered.choices:  # whoever breaks the rules of a stream is found out elsewhere
                    gathered.add(replace(chunk, receipt=None, opening=None, evidence=None, provider=""))
                yield chunk if chunk.receipt is None else _accepted(chunk, request, gathered, peer, blame)

    def answer(request: Request) -> AsyncIterator[Chunk]:
        return checked(request) if request.receipt else generate(request)

    return answer


def _accepted(chunk: Chunk, request: Request, gathered: Gathered, peer: bytes, blame: Blame) -> Chunk:
    assert chunk.receipt is not None, "only called with a receipt"
    signed = Signed(chunk.receipt, restored(chunk.opening, request, gathered))
    if problems := _problems(signed, request, gathered, peer):
        blame(f"its receipt does not hold: {problems[0]}")
        return replace(chunk, receipt=None, opening=None)
    return replace(chunk, opening=signed.opening)


def restored(opening: Opening | None, request: Request, gathered: Gathered) -> Opening | None:
    """With the request as it was asked and the text as it came: what the peer left out."""
    if opening is None or len(opening.outputs) != len(gathered.choices):
        return opening
    seen = [choice.opened() for choice in gathered.choices.values()]
    outputs = tuple(
        replace(output, text=mine.text, tool_calls=mine.tool_calls)
        for output, mine in zip(opening.outputs, seen, strict=True)
    )
    return replace(opening, request=essence(request), outputs=outputs)


def _problems(signed: Signed, request: Request, gathered: Gathered, peer: bytes) -> list[str]:
    receipt = signed.receipt
    if receipt.node != peer:
        return ["it is signed by another than the peer that answered"]
    if receipt.request_id.rpartition("/")[2] != request.request_id.rpartition("/")[2]:
        return ["it is of another request"]
    if receipt.parts or (signed.opening is not None and signed.opening.nested):
        return ["it names others, and a request travels one hop"]
    problems, mine = [*inspect(signed).problems], gathered.choices
    if sorted(output.choice for output in receipt.outputs) != sorted(mine):
        return [*problems, "it is about other choices"]
    shown = [None] * len(mine) if signed.opening is None else [*signed.opening.outputs]
    if len(shown) != len(mine):
        return [*problems, "it does not show every choice"]
    for output, opened in zip(receipt.outputs, shown, strict=True):
        problems += _differences(output, opened, mine[output.choice], request)
    return problems


def _differences(output: Output, opened: OutputOpening | None, mine: Choice, request: Request) -> Iterator[str]:
    """From what came. Tokens in front of it are known too, but where only the text so far was given."""
    sent = (*mine.given, *mine.tokens)
    is_by_text = request.resume is not None and not mine.given and request.resume.text != ""
    is_as_long = output.num_tokens >= len(sent) if is_by_text else output.num_tokens == len(sent)
    if output.finish_reason != mine.finish_reason or not is_as_long:
        yield f"choice {output.choice} ended otherwise"
    elif is_by_text and output.begins != output.num_tokens - len(sent):
        yield f"choice {output.choice} does not begin where its own tokens do"
    elif opened is not None and opened.tokens[output.num_tokens - len(sent) :] != sent:
        yield f"its tokens of choice {output.choice} are not those it sent"
