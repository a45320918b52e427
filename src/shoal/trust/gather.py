"""Chunks of one answer in, what a receipt says about it out."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.core.chunk import Chunk, ToolCallDelta
from shoal.core.receipt import Evidence, OutputOpening, Part, Signed
from shoal.core.request import Request, ToolCall
from shoal.core.usage import FinishReason, Usage
from shoal.trust.receipt import receipt_digest

LOCAL = "local"


@dataclass(slots=True)
class Choice:
    """`given`: tokens the request came with. `makers`: who made how many of the tokens, in order."""

    given: tuple[int, ...] = ()
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: dict[int, ToolCallDelta] = field(default_factory=dict)
    makers: list[tuple[str, int]] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    evidence: Evidence | None = None

    def add(self, chunk: Chunk) -> None:
        self.tokens += chunk.token_ids
        self.texts.append(chunk.text)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.evidence = chunk.evidence or self.evidence
        for delta in chunk.tool_calls:
            begun = self.calls.get(delta.index, ToolCallDelta(delta.index))
            arguments = begun.arguments + delta.arguments
            self.calls[delta.index] = ToolCallDelta(
                delta.index, begun.id or delta.id, begun.name or delta.name, arguments
            )
        self._credit(chunk.provider or LOCAL, len(chunk.token_ids))

    def _credit(self, maker: str, count: int) -> None:
        if self.makers and self.makers[-1][0] == maker:
            self.makers[-1] = maker, self.makers[-1][1] + count
        else:
            self.makers.append((maker, count))

    def opened(self) -> OutputOpening:
        evidence = self.evidence
        tokens = (*self.given, *self.tokens) if evidence is None else evidence.tokens
        calls = tuple(
            ToolCall(call.id or "", call.name or "", call.arguments) for _, call in sorted(self.calls.items())
        )
        return OutputOpening(tokens, "".join(self.texts), calls, evidence.fingerprints if evidence else ())

    def begins(self) -> int:
        return len(self.given) + len(self.tokens) if self.evidence is None else self.evidence.begins


class Gathered:
    """Of one request. `nested`: receipts that peers gave, as they were found true; `usage` once it is whole."""

    def __init__(self, request: Request) -> None:
        given = request.resume.tokens if request.resume is not None else ()
        first = request.resume.choice if request.resume is not None else 0
        self.choices = {first + offset: Choice(given) for offset in range(request.n)}
        self.nested: list[tuple[str, Signed]] = []
        self.usage: Usage | None = None

    def add(self, chunk: Chunk) -> None:
        self.choices[chunk.index].add(chunk)
        self.usage = chunk.usage or self.usage
        if chunk.receipt is not None:
            self.nested.append((chunk.provider, Signed(chunk.receipt, chunk.opening)))

    @property
    def has_evidence(self) -> bool:
        """Whether this node's own engine made some of it. A swarm's answer, say, is nobody's alone."""
        return any(choice.evidence is not None for choice in self.choices.values())

    def prompt(self) -> tuple[int, ...]:
        """As this node computed it, or as a peer says it did."""
        own = [choice.evidence.prompt for choice in self.choices.values() if choice.evidence is not None]
        told = [signed.opening.prompt for _, signed in self.nested if signed.opening is not None]
        return next(iter([*own, *told]), ())

    def parts(self) -> tuple[Part, ...]:
        """Nothing where this node made everything."""
        makers = {maker for choice in self.choices.values() for maker, _ in choice.makers}
        if makers <= {LOCAL}:
            return ()
        return tuple(part for index, choice in self.choices.items() for part in self._parts_of(index, choice))

    def _parts_of(self, index: int, choice: Choice) -> list[Part]:
        """What was text alone is in front of the first token, however many tokens it was for whoever went on. A receipt
        is of who ended the choice: a peer that gave up and came back signed its last part.
        """
        found, first = [], len(choice.opened().tokens) - len(choice.tokens)
        for place, (maker, count) in enumerate(choice.makers):
            is_last = place == len(choice.makers) - 1
            found.append(Part(index, maker, first, count, self._receipt_of(maker, index) if is_last else b""))
            first += count
        return found

    def _receipt_of(self, maker: str, choice: int) -> bytes:
        for provider, signed in reversed(self.nested):
            if provider == maker and any(output.choice == choice for output in signed.receipt.outputs):
                return receipt_digest(signed.receipt)
        return b""
