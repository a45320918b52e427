"""A forward pass and its proof: made by who runs the model, checked by whoever has its graph and the prompt.

The statement: this graph, run on these tokens, gives these logits. That the graph is the model is the business of
whoever made or compared it (`digest` of `graph.store` names it); that the tokens are the prompt's, of whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.encoding import decode, encode
from shoal.core.errors import InvalidRequest, RemoteError
from shoal.proof.graph.ir import Graph, Ints
from shoal.proof.lower.lower import Lowered, public_name
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.verifier import Verified, verify
from shoal.proof.weights import CommittedWeights

TOKENS, LOGITS = "tokens", "logits"
_FIELDS = {"tokens", "logits", "proof"}


@dataclass(frozen=True, slots=True)
class Forward:
    """tokens: the prompt. logits (vocabulary,): integers; times 2^-fraction of the graph's `logits` the model's."""

    tokens: tuple[int, ...]
    logits: Ints
    proof: bytes

    @property
    def next_token(self) -> int:
        """The likeliest, the lowest of equals."""
        return int(self.logits.argmax())

    def to_bytes(self) -> bytes:
        logits = np.ascontiguousarray(self.logits, "<i8").tobytes()
        return encode({"tokens": self.tokens, "logits": logits, "proof": self.proof})


def from_bytes(data: bytes) -> Forward:
    """What `Forward.to_bytes` wrote. ProofRejected for anything else; whether it is true is not looked at."""
    try:
        value = decode(data)
    except RemoteError as error:
        raise ProofRejected("format", str(error)) from error
    if type(value) is not dict or value.keys() != _FIELDS or type(value["tokens"]) is not list:
        raise ProofRejected("format", f"expected a map of {sorted(_FIELDS)}, found {type(value).__name__}")
    tokens, logits, proof = value["tokens"], value["logits"], value["proof"]
    if any(type(token) is not int or not 0 <= token < 1 << 32 for token in tokens):
        raise ProofRejected("format", "expected token ids from 0 on, found others")
    if type(logits) is not bytes or len(logits) % 8 or type(proof) is not bytes:
        raise ProofRejected("format", "expected logits of 8 bytes each and a proof in bytes, found others")
    return Forward(tuple(tokens), np.frombuffer(logits, "<i8").astype(np.int64), proof)


def prove_forward(model: Lowered, tokens: Sequence[int], committed: CommittedWeights | None = None) -> Forward:
    """Runs the graph and proves it, with the weights public, or behind the root of `committed`.

    Raises InvalidRequest for a prompt of another length than the graph's or tokens outside the vocabulary, and
    OutOfRange where an activation leaves the calibrated range: nothing is proven then.
    """
    check_model(model.graph)
    assignment = model.assign({TOKENS: np.asarray(tokens, np.int64)})
    public, witness = assignment.public, assignment.witness
    proof = prove(model.circuit, model.weights, public, witness, committed)
    return Forward(tuple(tokens), public[public_name(LOGITS)], proof)


def verify_forward(model: Lowered, forward: Forward, root: bytes | None = None) -> Verified:
    """Raises ProofRejected unless the graph gives these logits for these tokens; nothing of the pass is run again.

    root: of the weights' commitment, for proofs made with one; the graph may then lack them (`store.without_weights`).
    """
    check_model(model.graph)
    _check_public(model.graph, forward)
    public = {TOKENS: np.asarray(forward.tokens, np.int64), public_name(LOGITS): forward.logits}
    weights = model.weights if root is None else None
    return verify(model.circuit, public, forward.proof, weights, root)


def check_model(graph: Graph) -> None:
    """InvalidRequest for a graph that is no forward pass from `tokens` to `logits`."""
    if graph.inputs != (TOKENS,) or graph.outputs != (LOGITS,):
        found = f"{graph.inputs} to {graph.outputs}"
        raise InvalidRequest(f"graph: expected one made by transformer_graph, found one from {found}", "graph")


def _check_public(graph: Graph, forward: Forward) -> None:
    """A prompt and logits of the graph's sizes and in its ranges: what comes with a proof is the prover's word."""
    for name, numbers in ((TOKENS, np.asarray(forward.tokens, np.int64)), (LOGITS, forward.logits)):
        declared = graph.tensors[name]
        if numbers.shape != declared.shape:
            raise ProofRejected("public", f"{name}: expected shape {declared.shape}, found {numbers.shape}")
        if not ((numbers >= declared.low) & (numbers <= declared.high)).all():
            raise ProofRejected("public", f"{name}: expected {declared.low} to {declared.high}, found others")
