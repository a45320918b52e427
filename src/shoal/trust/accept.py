"""A peer's receipt on its way in: it is that peer's own, about this request and these tokens, or it is taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from shoal.core.chunk import Chunk
from shoal.core.receipt import Opening, Signed
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.trust.gather import Gathered
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
    problems = [*inspect(signed).problems]
    mine = gathered.choices
    if {output.choice for output in receipt.outputs} != set(mine):
        return [*problems, "it is about other choices"]
    for place, output in enumerate(receipt.outputs):
        choice = mine[output.choice]
        if output.finish_reason != choice.finish_reason or output.num_tokens < len(choice.tokens):
            problems.append(f"choice {output.choice} ended otherwise")
        elif signed.opening is not None and not _ends_with(signed.opening.outputs[place].tokens, choice.tokens):
            problems.append(f"its tokens of choice {output.choice} are not those it sent")
    return problems


def _ends_with(tokens: tuple[int, ...], tail: list[int]) -> bool:
    return list(tokens[len(tokens) - len(tail) :]) == tail
