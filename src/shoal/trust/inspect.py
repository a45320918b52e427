"""What can be checked about a receipt with nothing but the receipt: structure, signature, commitments, parts.

Offline and without numpy or torch. What a check on the model itself can find is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from shoal.core.receipt import SEGMENT_TOKENS, Opening, Output, OutputOpening, Part, Receipt, Signed
from shoal.core.text import is_plain
from shoal.crypto.keys import PUBLIC_BYTES, SIGNATURE_BYTES
from shoal.mesh.peer_id import PeerId
from shoal.trust.commit import SALT_BYTES
from shoal.trust.receipt import is_signed, receipt_digest
from shoal.trust.statement import output_of, prompt_commitment, request_commitment, sampled

DIGEST_BYTES = 32
MAX_CHOICES = 1024
MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class Inspection:
    """`holds` and `problems` in words, most important first; valid: no problem."""

    holds: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        return not self.problems

    def and_also(self, problems: Iterable[str]) -> Inspection:
        """With more of them."""
        return replace(self, problems=(*self.problems, *problems))


def inspect(signed: Signed) -> Inspection:
    """A receipt and, where there is one, its opening with the receipts of peers in it."""
    receipt, opening = signed.receipt, signed.opening
    problems = [*_structure(receipt)]
    holds = []
    if is_signed(receipt):
        holds.append(f"signed by {signer(receipt)[:10]}… as its number {receipt.sequence}")
    else:
        problems.insert(0, "the signature is not the named signer's, or the receipt was changed after it was signed")
    if opening is None:
        holds.append("nothing of prompt or answer was shown, so only the signature was checked")
    else:
        wrong = [*_opening(receipt, opening)]
        problems += wrong
        holds += [] if wrong else [*_opened(receipt, opening)]
        problems += _nested(receipt, opening)
    return Inspection(tuple(holds), tuple(problems))


def _structure(receipt: Receipt) -> Iterator[str]:
    if len(receipt.node) != PUBLIC_BYTES or len(receipt.signature) != SIGNATURE_BYTES:
        yield "expected a public key of 32 bytes and a signature of 64"
    if receipt.sequence < 1 or len(receipt.previous) != DIGEST_BYTES:
        yield "expected a number from 1 on and the 32 bytes of the chain's head before it"
    if len(receipt.request) != DIGEST_BYTES or len(receipt.prompt) not in (0, DIGEST_BYTES):
        yield "expected commitments of 32 bytes to request and prompt"
    if not 0 < len(receipt.outputs) <= MAX_CHOICES:
        yield f"expected 1 to {MAX_CHOICES} outputs, found {len(receipt.outputs)}"
    if len({output.choice for output in receipt.outputs}) != len(receipt.outputs):
        yield "expected one output for each choice, found a choice twice"
    for output in receipt.outputs:
        if not (0 <= output.begins <= output.num_tokens and 0 <= output.choice < 2**16):
            yield f"choice {output.choice}: expected fingerprints within its {output.num_tokens} tokens"
        if len(output.tokens) != DIGEST_BYTES or len(output.text) != DIGEST_BYTES:
            yield f"choice {output.choice}: expected commitments of 32 bytes"
    yield from _parts(receipt)
    model = receipt.model
    texts = [receipt.request_id, model.name, model.quantization, model.device, model.kernels, model.kv]
    texts += [part.provider for part in receipt.parts]
    if not all(len(text) <= MAX_TEXT and is_plain(text) for text in texts):
        yield "expected names of at most 512 characters that can be shown, found others"


def _parts(receipt: Receipt) -> Iterator[str]:
    """Parts of a choice follow each other and end at its last token."""
    lengths = {output.choice: output.num_tokens for output in receipt.outputs}
    by_choice: dict[int, list[Part]] = {}
    for part in receipt.parts:
        by_choice.setdefault(part.choice, []).append(part)
    for choice, parts in by_choice.items():
        ends = [part.first + part.count for part in parts]
        follows = all(part.first == end for part, end in zip(parts[1:], ends, strict=False))
        is_counted = all(part.count >= 0 and part.first >= 0 for part in parts) and follows
        if choice not in lengths or not is_counted or ends[-1] != lengths[choice]:
            yield f"choice {choice}: the parts do not add up to its tokens"


def _opening(receipt: Receipt, opening: Opening) -> Iterator[str]:
    if len(opening.salt) != SALT_BYTES:
        yield f"expected a salt of {SALT_BYTES} bytes, found {len(opening.salt)}"
        return
    if opening.request is not None:
        if request_commitment(opening.salt, opening.request) != receipt.request:
            yield "the request shown is not the one that was signed"
        if sampled(opening.request.sampling) != receipt.sampling:
            yield "the sampling parameters of the request shown are not those that were signed"
        if opening.request.approximation != receipt.approximation:
            yield "the approximations of the request shown are not those that were signed"
    if prompt_commitment(opening.salt, opening.prompt) != receipt.prompt:
        yield "the prompt shown is not the one that was signed"
    if len(opening.outputs) != len(receipt.outputs):
        yield f"expected {len(receipt.outputs)} outputs shown, found {len(opening.outputs)}"
        return
    for output, shown in zip(receipt.outputs, opening.outputs, strict=True):
        yield from _output(opening.salt, output, shown)


def _output(salt: bytes, output: Output, shown: OutputOpening) -> Iterator[str]:
    again = output_of(salt, output.choice, output.begins, output.finish_reason, shown)
    name = f"choice {output.choice}: the"
    if (again.tokens, again.num_tokens) != (output.tokens, output.num_tokens):
        yield f"{name} tokens shown are not those that were signed"
    if again.text != output.text:
        yield f"{name} text shown is not the one that was signed"
    if again.fingerprints != output.fingerprints:
        yield f"{name} fingerprints shown are not those that were signed"
    elif shown.fingerprints and len(shown.fingerprints) != -(-(output.num_tokens - output.begins) // SEGMENT_TOKENS):
        yield f"{name} fingerprints are not as many as its tokens"


def _opened(receipt: Receipt, opening: Opening) -> Iterator[str]:
    if opening.request is not None:
        yield "the request is the one that was signed"
    if receipt.prompt:
        yield f"the prompt's {len(opening.prompt)} tokens match"
    for output, shown in zip(receipt.outputs, opening.outputs, strict=True):
        marks = f", {len(shown.fingerprints)} fingerprints" if shown.fingerprints else ", no fingerprints"
        yield f"choice {output.choice}: {output.num_tokens} tokens and the text match{marks}"


def _nested(receipt: Receipt, opening: Opening) -> Iterator[str]:
    """Receipts of peers: all that are named are there, true by themselves, and about this answer."""
    found = {receipt_digest(signed.receipt): signed for signed in opening.nested}
    named = {part.receipt: part for part in receipt.parts if part.receipt}
    if set(found) - set(named):
        yield "a peer's receipt is shown that no part names"
    for digest, part in named.items():  # each once, however many parts name it
        if digest not in found:
            yield f"the receipt of {part.provider} is missing"
        else:
            yield from (f"{part.provider}: {problem}" for problem in _peers(found[digest]))
    left = sum(len(shown.tokens) for shown in opening.outputs)
    for part in receipt.parts:
        left -= part.count
        if part.count < 0 or part.first < 0 or left < 0:
            return  # found above; comparing parts that overlap could take for ever
        if part.receipt in found:
            yield from (f"{part.provider}: {problem}" for problem in _part(receipt, opening, part, found[part.receipt]))


def _peers(signed: Signed) -> tuple[str, ...]:
    """What is wrong with a peer's receipt by itself; it holds none of others, since a request travels one hop."""
    if signed.receipt.parts or (signed.opening is not None and signed.opening.nested):
        return ("its receipt names others, and a request travels one hop",)
    return inspect(signed).problems


def _part(receipt: Receipt, opening: Opening, part: Part, signed: Signed) -> Iterator[str]:
    """Whether these are the peer's tokens, as far as they are shown."""
    if signed.opening is None:
        return
    theirs = _tokens_of(signed.receipt, signed.opening, part.choice)
    ours = _tokens_of(receipt, opening, part.choice)[part.first : part.first + part.count]
    if theirs[len(theirs) - part.count :] != ours:
        yield f"its tokens of choice {part.choice} are not the answer's"


def _tokens_of(receipt: Receipt, opening: Opening, choice: int) -> tuple[int, ...]:
    pairs = zip(receipt.outputs, opening.outputs, strict=False)
    return next((shown.tokens for output, shown in pairs if output.choice == choice), ())


def signer(receipt: Receipt) -> str:
    """The signer's id as a peer; hexadecimal for what is no key."""
    return str(PeerId(receipt.node)) if len(receipt.node) == PUBLIC_BYTES else receipt.node.hex()
