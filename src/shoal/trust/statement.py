"""What was answered, as commitments: the one place where a signer and a checker compute them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shoal.core.decoding import compact
from shoal.core.encoding import encode
from shoal.core.receipt import SEGMENT_TOKENS, Output, OutputOpening, Sampled
from shoal.core.request import Request, Sampling
from shoal.core.usage import FinishReason
from shoal.trust.commit import SegmentOpening, commit, merkle_root, open_leaf, salt_of


def essence(request: Request) -> Request:
    """The request without what does not change its answer."""
    return replace(request, request_id="", priority=0, deadline=None, receipt=False, audit="", resume=None)


def sampled(sampling: Sampling) -> Sampled:
    """The numbers alone."""
    return Sampled(**{name: getattr(sampling, name) for name in Sampled.__dataclass_fields__})


def segments(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + SEGMENT_TOKENS]) for at in range(0, len(tokens), SEGMENT_TOKENS)]


def request_commitment(salt: bytes, request: Request) -> bytes:
    return commit(salt, "request", encode(compact(essence(request))))


def prompt_commitment(salt: bytes, prompt: Sequence[int]) -> bytes:
    """Empty where the prompt's tokens are not known."""
    return commit(salt, "prompt", encode(list(prompt))) if prompt else b""


def text_commitment(salt: bytes, choice: int, output: OutputOpening) -> bytes:
    return commit(salt, f"text {choice}", encode([output.text, compact(output.tool_calls)]))


def tokens_root(salt: bytes, choice: int, tokens: Sequence[int]) -> bytes:
    return merkle_root(_token_leaves(salt, choice, tokens))


def fingerprints_root(salt: bytes, choice: int, fingerprints: Sequence[bytes]) -> bytes:
    """Empty where there are none."""
    label = f"fingerprint {choice}"
    leaves = [commit(salt, f"{label} {at}", data) for at, data in enumerate(fingerprints)]
    return merkle_root(leaves) if leaves else b""


def open_segment(salt: bytes, choice: int, tokens: Sequence[int], position: int) -> tuple[SegmentOpening, bytes]:
    """What shows segment `position` of a choice's tokens, and only that: for `commit.is_leaf` with `Output.tokens`."""
    leaves, label = _token_leaves(salt, choice, tokens), _token_label(choice, position)
    return open_leaf(leaves, position, salt_of(salt, label)), encode(segments(tokens)[position])


def output_of(salt: bytes, choice: int, begins: int, reason: FinishReason, opened: OutputOpening) -> Output:
    """The commitments to one choice."""
    return Output(
        choice,
        len(opened.tokens),
        begins,
        reason,
        tokens_root(salt, choice, opened.tokens),
        text_commitment(salt, choice, opened),
        fingerprints_root(salt, choice, opened.fingerprints),
    )


def _token_leaves(salt: bytes, choice: int, tokens: Sequence[int]) -> list[bytes]:
    return [commit(salt, _token_label(choice, at), encode(part)) for at, part in enumerate(segments(tokens))]


def _token_label(choice: int, position: int) -> str:
    return f"tokens {choice} {position}"
