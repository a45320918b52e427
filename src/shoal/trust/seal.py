"""A `Generate` whose answers are signed: chunks pass as they come, the last one gets a receipt and its opening.

Rules that stay true in this file:
- only a whole answer is signed: one that fails or is cancelled takes no number of the chain;
- what has no canonical bytes, and so cannot be signed, is refused before anything is computed; so is what was asked
  with a receipt while the disk is full or read-only;
- the receipt is on the disk before its chunk leaves;
- where no receipt is wanted the inner iterator is returned as it is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.receipt import ModelIdentity, Opening, Receipt, Signed
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.core.usage import Usage
from shoal.crypto.keys import PrivateKey
from shoal.trust.commit import SALT_BYTES
from shoal.trust.gather import Gathered
from shoal.trust.receipt import sign, write_opening
from shoal.trust.shelf import Openings, Shelf
from shoal.trust.statement import essence, output_of, prompt_commitment, request_commitment, sampled

Policy = Literal["always", "asked", "off"]
MAX_SENT_OPENING_BYTES = 512 * 2**10
"""Of a peer's answer: more would not fit one message. A longer one is told without."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Sealer:
    """Signs with `key`, numbers by `shelf`. `identity`: of what the engine here computes for a request.

    signed  how many receipts since the start.
    """

    key: PrivateKey
    shelf: Shelf
    clock: Clock
    identity: Callable[[Request], ModelIdentity]
    policy: Policy = "asked"
    openings: Openings = field(default_factory=Openings)
    signed: int = 0

    def sealed(self, generate: Generate) -> Generate:
        """For this node's own clients. InvalidRequest for a receipt where this node signs none."""

        def answer(request: Request) -> AsyncIterator[Chunk]:
            if request.receipt and self.policy == "off":
                told = "receipt: this node signs none; start it with --receipts asked"
                raise InvalidRequest(told, "receipt", "receipts_off")
            if not request.receipt and self.policy != "always":
                return generate(request)
            return self._answer(generate, request, is_kept=True)

        return answer

    def sealed_for_peers(self, generate: Generate) -> Generate:
        """For peers, who get none where this node signs none. What they know already is not sent back."""

        async def sent(request: Request) -> AsyncIterator[Chunk]:
            async with closing(self._answer(generate, request, is_kept=False)) as chunks:
                async for chunk in chunks:
                    yield chunk if chunk.opening is None else replace(chunk, opening=_shortened(chunk.opening))

        def answer(request: Request) -> AsyncIterator[Chunk]:
            if self.policy == "off" or not request.receipt:
                return generate(replace(request, receipt=False))
            return sent(request)

        return answer

    async def _answer(self, generate: Generate, request: Request, is_kept: bool) -> AsyncIterator[Chunk]:
        asked, request = request, _with_seed(replace(request, receipt=True))
        if (reason := await asyncio.to_thread(_unsignable, request)) is not None:
            if asked.receipt:
                raise InvalidRequest(f"receipt: this request cannot be signed: {reason}", "receipt")
            _log.error("an answer goes out without its receipt: %s", reason)
            request = replace(request, receipt=False)
        if asked.receipt:
            await asyncio.to_thread(self.shelf.check_writable)
        gathered = Gathered(request)
        async with closing(generate(request)) as chunks:
            async for chunk in chunks:
                gathered.add(chunk)
                if chunk.usage is None or not request.receipt:
                    yield _bare(chunk)
                else:
                    yield await self._with_receipt(_bare(chunk), chunk.usage, asked, request, gathered, is_kept)

    async def _with_receipt(
        self, chunk: Chunk, usage: Usage, asked: Request, request: Request, gathered: Gathered, is_kept: bool
    ) -> Chunk:
        try:
            signed = await asyncio.to_thread(self._seal, request, gathered, usage)
        except LocalError as error:
            if asked.receipt:
                raise
            _log.error("an answer went out without its receipt: %s", error)
            return chunk
        self.signed += 1
        if is_kept and signed.opening is not None:
            self.openings.keep(request.request_id, signed.opening)
        return replace(chunk, receipt=signed.receipt, opening=signed.opening) if asked.receipt else chunk

    def _seal(self, request: Request, gathered: Gathered, usage: Usage) -> Signed:
        """LocalError for what cannot be signed or written down."""
        try:
            receipt, opening = draft(request, gathered, usage, secrets.token_bytes(SALT_BYTES))
        except (ValueError, TypeError) as error:  # what answered said something that has no canonical bytes
            raise LocalError(f"the answer cannot be signed: {error}") from error
        model = self.identity(request) if gathered.has_evidence else ModelIdentity(request.model)
        receipt = replace(receipt, model=model, created=int(self.clock.wall()))

        def make(sequence: int, head: bytes) -> Receipt:
            return sign(replace(receipt, sequence=sequence, previous=head), self.key)

        return Signed(self.shelf.append(self.key.public, make), opening)


def draft(request: Request, gathered: Gathered, usage: Usage, salt: bytes) -> tuple[Receipt, Opening]:
    """Everything about an answer that is neither the node's nor the chain's."""
    outputs = {index: choice.opened() for index, choice in gathered.choices.items()}
    prompt = gathered.prompt()
    receipt = Receipt(
        request_id=request.request_id,
        sampling=sampled(request.sampling),
        request=request_commitment(salt, request),
        prompt=prompt_commitment(salt, prompt),
        outputs=tuple(
            output_of(salt, index, choice.begins(), choice.finish_reason, outputs[index])
            for index, choice in gathered.choices.items()
        ),
        usage=usage,
        parts=gathered.parts(),
        approximation=request.approximation,
    )
    nested = tuple(signed for _, signed in gathered.nested)
    return receipt, Opening(salt, essence(request), prompt, tuple(outputs.values()), nested)


def _unsignable(request: Request) -> str | None:
    """Why this request has no canonical bytes (an integer of 30 digits in a tool's schema, ...); None: it has."""
    try:
        request_commitment(bytes(SALT_BYTES), request)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _bare(chunk: Chunk) -> Chunk:
    """Without what is only for receipts."""
    if chunk.provider or chunk.evidence is not None or chunk.receipt is not None:
        return replace(chunk, receipt=None, opening=None, evidence=None, provider="")
    return chunk


def _with_seed(request: Request) -> Request:
    """With a seed of its own, so that the receipt can say what was sampled with."""
    if request.sampling.seed is not None or request.sampling.temperature == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))


def _shortened(opening: Opening) -> Opening | None:
    """Without the request and the text, which whoever asked has: see `accept.restored`."""
    outputs = tuple(replace(output, text="", tool_calls=()) for output in opening.outputs)
    short = replace(opening, request=None, outputs=outputs, nested=())
    return short if len(write_opening(short)) <= MAX_SENT_OPENING_BYTES else None
