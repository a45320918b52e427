"""The proof tier for answers of language models: forward passes that were proven give the tokens of the answer.

For each output token the evidence is a `Forward`: prompt and tokens before it, the logits an integer graph gives
for them, and a proof of that. The token must be the likeliest, so only greedy answers can be shown this way. Graphs
are made for one number of tokens each; what lacks a proof is unsure, by name of its position (in the answer,
from 0).

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
NO_PROOF = "no proof of what comes after these tokens"
MOST_LISTED = 16


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
        prompt, several = subject.opening.prompt, len(outputs) > 1
        names = {o.choice: f"choice {o.choice} position" if several else "position" for o in subject.receipt.outputs}
        found = [
            await asyncio.to_thread(
                self._token, f"{names[output.choice]} {place}", (*prompt, *opened.tokens[:place]), token
            )
            for opened, output in zip(outputs, subject.receipt.outputs, strict=True)
            for place, token in enumerate(opened.tokens)
            if place >= subject.begins(output.choice)
        ]
        return _joined(found)

    def _token(self, name: str, before: tuple[int, ...], token: int) -> Finding:
        given, model = [one for one in self.passes if one.tokens == before], self.graphs.get(len(before))
        if not given:
            return Finding(name, NO_PROOF, None, NEAR)
        if model is None:
            return Finding(name, f"a proof, but no graph of {len(before)} tokens to check it with", None, NEAR)
        try:
            one, verified = self._first_true(model, given)
        except ProofRejected as error:
            return Finding(name, f"its proof is false, whoever made it: {error}", None, NEAR)
        if not 0 <= token < len(one.logits):
            return Finding(name, "no token of this model", float("inf"), NEAR)
        scale = 2.0 ** -model.graph.tensors[LOGITS].fraction
        behind = float((int(one.logits.max()) - int(one.logits[token])) * scale)
        return Finding(name, f"nats behind the likeliest, {verified.bits_proven:.0f} bits proven", behind, NEAR)

    def _first_true(self, model: Lowered, given: Sequence[Forward]) -> tuple[Forward, Verified]:
        """A false proof beside a true one changes nothing. ProofRejected where all of them are false: the last."""
        for one in given[:-1]:
            try:
                return one, self._verified(model, one)
            except ProofRejected:
                continue
        return given[-1], self._verified(model, given[-1])

    def _verified(self, model: Lowered, one: Forward) -> Verified:
        return verify_forward(model, one, None if self.roots is None else self.roots[len(one.tokens)])


def _is_likeliest(subject: Subject) -> bool:
    """Whether the request asks for the likeliest token everywhere, and for nothing that bends the logits."""
    sampled, request = subject.receipt.sampling, subject.opening.request
    plain = sampled.temperature == 0 and sampled.repetition_penalty == 1 and sampled.min_tokens == 0
    free = sampled.frequency_penalty == 0 and sampled.presence_penalty == 0
    return plain and free and request is not None and request.constraint is None and not request.sampling.logit_bias


def _joined(findings: Sequence[Finding]) -> Verdict:
    """The findings of a verdict are those that something was shown for: without a proof, the reason names them."""
    if not findings:
        return Verdict("proof", "unsure", "the signer made no token of this answer")
    outcomes = [_outcome(finding) for finding in findings]
    shown = tuple(finding for finding in findings if finding.text != NO_PROOF)
    if "fail" in outcomes:
        wrong = findings[outcomes.index("fail")]
        return Verdict("proof", "fail", f"{wrong.name}: {wrong.text}", shown)
    if "unsure" in outcomes:
        return Verdict("proof", "unsure", _counted(findings, outcomes), shown)
    return Verdict("proof", "pass", f"all {len(findings)} tokens are proven to be the likeliest", shown)


def _counted(findings: Sequence[Finding], outcomes: Sequence[Outcome]) -> str:
    """Which positions are proven, which have no proof; the rest is in the findings."""
    proven = [finding.name for finding, outcome in zip(findings, outcomes, strict=True) if outcome == "pass"]
    missing = [finding.name for finding in findings if finding.text == NO_PROOF]
    parts = [f"{len(proven)} of {len(findings)} tokens are proven{_listed(proven)}"]
    parts += [f"without a proof: {len(missing)}{_listed(missing)}"] if missing else []
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(name.removeprefix("position ") for name in names[:MOST_LISTED])
    return f" (positions {few}{', ...' if len(names) > MOST_LISTED else ''})" if names else ""


def _outcome(finding: Finding) -> Outcome:
    if finding.measured is None:
        return "unsure"
    return "pass" if finding.measured == 0 else "unsure" if finding.measured <= NEAR else "fail"
