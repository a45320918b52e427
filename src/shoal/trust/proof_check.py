"""The proof tier for answers of language models: forward passes that were proven give the tokens of the answer.

For each output token the evidence is a `Forward`: prompt and tokens before it, the logits an integer graph gives
for them, and a proof of that. The token must be the likeliest, so only greedy answers can be shown this way. Graphs
are made for one number of tokens each; what lacks a proof is unsure, by name of its position.

What this does not protect against: a graph that is not the model named. The graph is whatever the verifier trusts (its
digest, or made here from the weights); it computes in integers, so where two tokens are nearly as likely an honest
engine in floats may have chosen the other one: such a token is unsure, not failed. Prompt and answer are in the open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest
from shoal.proof.lower.lower import Lowered
from shoal.proof.rejected import ProofRejected
from shoal.proof.transformer.forward import LOGITS, Forward, verify_forward
from shoal.proof.verifier import Verified
from shoal.trust.check import Subject
from shoal.trust.verdict import Finding, Outcome, Verdict

NEAR = 0.5
"""Nats between the likeliest logit and the answer's within which rounding, and not a lie, may have chosen."""


@dataclass(frozen=True, slots=True)
class ProofCheck:
    """A `Checker`. weights: of the file that the graphs were made from, as receipts name it (SHA-256).

    graphs  number of tokens -> graph with its circuit.
    passes  what the answerer, or anybody else, proved.
    roots   number of tokens -> root of the committed weights; None: the graphs have the numbers.
    """

    weights: bytes
    graphs: Mapping[int, Lowered]
    passes: Sequence[Forward]
    roots: Mapping[int, bytes] | None = None

    async def __call__(self, subject: Subject) -> Verdict:
        """InvalidRequest for an answer of another model, an adapter, or none that has tokens."""
        model, outputs = subject.receipt.model, subject.opening.outputs
        if model.adapter or model.weights != self.weights:
            raise InvalidRequest(f"the answer is said to come from {model.name!r}, the proofs are of another model")
        if not subject.opening.prompt or not any(output.tokens for output in outputs):
            raise InvalidRequest("expected the prompt's and the answer's tokens in the opening, found none")
        if not _is_likeliest(subject):
            return Verdict("proof", "unsure", "tokens were not simply the likeliest: the logits alone do not bind them")
        given = {one.tokens: one for one in self.passes}
        found = [
            await asyncio.to_thread(self._token, given, (*subject.opening.prompt, *opened.tokens[:place]), token)
            for opened, output in zip(outputs, subject.receipt.outputs, strict=True)
            for place, token in enumerate(opened.tokens)
            if place >= subject.begins(output.choice)
        ]
        return _joined(found)

    def _token(self, given: Mapping[tuple[int, ...], Forward], before: tuple[int, ...], token: int) -> Finding:
        name = f"token {len(before)}"
        one, model = given.get(before), self.graphs.get(len(before))
        if one is None or model is None:
            return Finding(name, "no proof of what comes after these tokens", None, NEAR)
        try:
            verified = self._verified(model, one)
        except ProofRejected as error:
            return Finding(name, f"its proof is false, whoever made it: {error}", None, NEAR)
        if not 0 <= token < len(one.logits):
            return Finding(name, "no token of this model", float("inf"), NEAR)
        scale = 2.0 ** -model.graph.tensors[LOGITS].fraction
        behind = float((int(one.logits.max()) - int(one.logits[token])) * scale)
        return Finding(name, f"nats behind the likeliest, {verified.bits_proven:.0f} bits proven", behind, NEAR)

    def _verified(self, model: Lowered, one: Forward) -> Verified:
        return verify_forward(model, one, None if self.roots is None else self.roots[len(one.tokens)])


def _is_likeliest(subject: Subject) -> bool:
    """Whether the request asks for the likeliest token everywhere, and for nothing that bends the logits."""
    sampled, request = subject.receipt.sampling, subject.opening.request
    plain = sampled.temperature == 0 and sampled.repetition_penalty == 1 and sampled.min_tokens == 0
    free = sampled.frequency_penalty == 0 and sampled.presence_penalty == 0
    return plain and free and request is not None and request.constraint is None and not request.sampling.logit_bias


def _joined(findings: Sequence[Finding]) -> Verdict:
    if not findings:
        return Verdict("proof", "unsure", "the signer made no token of this answer")
    outcomes = [_outcome(finding) for finding in findings]
    shown = tuple(f for f, outcome in zip(findings, outcomes, strict=True) if outcome != "pass") or tuple(findings)
    proven = sum(outcome == "pass" for outcome in outcomes)
    if "fail" in outcomes:
        return Verdict("proof", "fail", f"{shown[0].name}: {findings[outcomes.index('fail')].text}", shown)
    if "unsure" in outcomes:
        return Verdict("proof", "unsure", f"{proven} of {len(findings)} tokens are proven", shown)
    return Verdict("proof", "pass", f"all {len(findings)} tokens are proven to be the likeliest", shown)


def _outcome(finding: Finding) -> Outcome:
    if finding.measured is None:
        return "unsure"
    return "pass" if finding.measured == 0 else "unsure" if finding.measured <= NEAR else "fail"
