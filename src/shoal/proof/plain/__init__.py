"""A second verifier: the protocol again, in Python integers, by brute force, from its description rather than its code.

What it does: says of a proof what `verifier.verify` says, slowly. Expressions are evaluated at every index of their
space, positions of committed numbers are counted one by one, codewords are polynomials evaluated term by term. It
shares with the first verifier the circuit's data types, the decoder of bytes (core.encoding) and the choice of the
commitment's parameters, whose soundness it counts again; no arithmetic, no layout, no transcript, no Merkle tree.
Everything but the commitment is written for any prime, so that tests can measure how often cheats pass in small fields.

Files in reading order: scalars (the field), coins (the transcript), statement (digests), places (where numbers lie),
forms (linear forms in committed numbers), lookups, identities, opening, parts (bytes), soundness, verify.

What this does not protect against: slowness (circuits of thousands of numbers, not millions), circuits that mean
nothing (`wellformed` and `bounds` are called by the first verifier alone), and what the first verifier does not either.
"""
