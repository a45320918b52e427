"""The proof tier: tokens that proven logits make the likeliest pass; others are unsure or fail, by how far they are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from shoal.core.clock import VirtualClock
from shoal.core.errors import InvalidRequest
from shoal.core.receipt import ModelIdentity, Opening, Output, OutputOpening, Receipt, Sampled
from shoal.core.request import Message, Request, Sampling
from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.transformer.build import transformer_graph
from shoal.proof.transformer.config import TransformerConfig
from shoal.proof.transformer.forward import Forward, prove_forward
from shoal.proof.transformer.reference import Reference
from shoal.proof.transformer.scales import Scales
from shoal.trust.check import Subject, check
from shoal.trust.proof_check import ProofCheck
from shoal.trust.verdict import Verdict

LLAMA = TransformerConfig(layers=1, hidden=8, heads=2, kv_heads=1, head_dim=4, inner=12, vocab=9)
PROMPT = (3, 8, 0)
WEIGHTS = b"w" * 32
REQUEST = Request("r", "tiny", (Message("user", "x"),), Sampling(temperature=0), receipt=True)


@cache
def graphs() -> dict[int, Lowered]:
    """For three tokens and for four."""
    rng, shapes = np.random.default_rng(1), LLAMA.shapes()
    weights = {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    weights |= {name: np.ones(shape) for name, shape in shapes.items() if len(shape) == 1}
    reference = Reference(LLAMA, weights)
    for start in range(9):
        reference.logits([start, *PROMPT])
    short = Scales(reference.largest, bits=10, residual=7, rounded=10, one=10, table_bits=10, mantissa=8, headroom=2)
    return {length: lower(transformer_graph(LLAMA, weights, length, short)) for length in (3, 4)}


@cache
def passes() -> tuple[Forward, Forward]:
    first = prove_forward(graphs()[3], PROMPT)
    return first, prove_forward(graphs()[4], (*PROMPT, first.next_token))


def subject(tokens: tuple[int, ...], request: Request = REQUEST, **sampled: float) -> Subject:
    outputs = (Output(0, len(tokens), 0, "stop", b"", b""),)
    receipt = Receipt(model=ModelIdentity("tiny", WEIGHTS), sampling=Sampled(**{"temperature": 0.0, **sampled}),  # type: ignore[arg-type]
                      outputs=outputs)  # fmt: skip
    return Subject(receipt, Opening(b"s" * 32, request, PROMPT, (OutputOpening(tokens),)))


def judged(asked: Subject, given: tuple[Forward, ...] | None = None) -> Verdict:
    return asyncio.run(ProofCheck(WEIGHTS, graphs(), passes() if given is None else given)(asked))  # type: ignore[arg-type]


def test_tokens_that_are_proven_pass() -> None:
    first, second = passes()
    verdict = judged(subject((first.next_token, second.next_token)))
    assert (verdict.outcome, verdict.reason) == ("pass", "all 2 tokens are proven to be the likeliest")
    assert [finding.measured for finding in verdict.findings] == [0, 0]


def test_a_token_far_from_the_likeliest_fails() -> None:
    first, _ = passes()
    unlikely = int(first.logits.argmin())
    verdict = judged(subject((unlikely,)))
    assert verdict.outcome == "fail"
    assert "position 0" in verdict.reason
    assert verdict.findings[0].measured is not None
    assert verdict.findings[0].measured > 0.5


def test_what_lacks_a_proof_or_has_a_false_one_is_unsure() -> None:
    first, second = passes()
    tokens = (first.next_token, second.next_token)
    assert judged(subject(tokens), (first,)).reason == (
        "1 of 2 tokens are proven (positions 0); without a proof: 1 (positions 1)"
    )
    bent = first.logits.copy()
    bent[first.next_token] += 1
    verdict = judged(subject(tokens), (replace(first, logits=bent), second))
    assert verdict.outcome == "unsure"
    assert "its proof is false" in verdict.findings[0].text
    for both in ((first, replace(first, logits=bent)), (replace(first, logits=bent), first)):
        assert judged(subject(tokens[:1]), both).outcome == "pass", "a false proof takes nothing from a true one"
    longer = replace(first, tokens=(*PROMPT, *tokens))
    verdict = judged(subject((*tokens, 1)), (first, second, longer))
    assert verdict.outcome == "unsure"
    assert "no graph of 5 tokens" in verdict.findings[2].text


@pytest.mark.parametrize("bend", [{"temperature": 0.7}, {"repetition_penalty": 1.1}, {"presence_penalty": 0.5}])
def test_chosen_in_another_way_is_unsure(bend: dict[str, float]) -> None:
    assert judged(subject((passes()[0].next_token,), **bend)).outcome == "unsure"
    biased = replace(REQUEST, sampling=Sampling(temperature=0, logit_bias={1: 5.0}))
    assert judged(subject((passes()[0].next_token,), biased)).outcome == "unsure"


def test_other_models_and_empty_openings_are_refused() -> None:
    asked = subject((passes()[0].next_token,))
    other = replace(asked, receipt=replace(asked.receipt, model=ModelIdentity("tiny", b"x" * 32)))
    with pytest.raises(InvalidRequest, match="another model"):
        judged(other)
    with pytest.raises(InvalidRequest, match="found none"):
        judged(replace(asked, opening=replace(asked.opening, outputs=(OutputOpening(),))))


def test_a_receipt_that_does_not_hold_fails_before_any_proof_is_read() -> None:
    checker = ProofCheck(WEIGHTS, graphs(), ())
    verdict = asyncio.run(check(subject((1,)), "proof", {"proof": checker}, VirtualClock()))
    assert (verdict.tier, verdict.outcome) == ("proof", "fail")
    assert "the receipt does not hold" in verdict.reason
