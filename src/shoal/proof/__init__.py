"""Proofs of computation: the numbers of an answer satisfy a fixed circuit, checked far below the cost of recomputing.

What it does: a circuit (circuit.py) states what holds between tensors of integers: products of tensors, and lookups in
tables. `prover.prove` shows that a witness satisfies it, `verifier.verify` checks that without the witness, from the
circuit, the public numbers and the weights, or a commitment to them. Transparent and hash-based: no trusted setup, no
assumption but a collision-resistant hash that behaves as a random oracle. `graph`, `onnx` and `lower` make circuits of
models. What it does not: hide anything. The proofs are verifiable, not zero-knowledge.

Files in reading order. The statement: circuit, wellformed, bounds, satisfy (the plain oracle), digest, statement, plan,
bits. The protocol, top down: prover and verifier, proofs (bytes); lookups: logup, lookup_prover, gkr, fractions;
identities: identities, fixed, identity_prover, running, culprit, identity_verifier; what both leave: claims, axes,
expressions, opening. The commitment: layout, parameters, ligero, columns, ntt, weights. Arithmetic: scalars, field,
twin, multilinear, rounds, products, contract, native and csrc.

`plain` is a second verifier in Python integers; tests hold the two, and a prover that lies, against each other.

Compiled models on disk and the functions behind `shoal prove`: artifacts (start there), `__main__` (a verifier alone).

A verifier needs numpy, blake3 and cbor2, and no compiler.

What this does not protect against: a circuit that says something else than the model; see also verifier.py.
"""
