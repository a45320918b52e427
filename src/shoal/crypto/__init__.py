"""Keys, signatures, hashes and transcripts: the words of trust, over well-kept libraries; no cipher of our own.

keys        Ed25519 keys and their signatures.
hashes      BLAKE3 with a purpose in every hash, so that no digest can be mistaken for another's.
transcript  Challenges that are a hash of all that was said before (Fiat and Shamir).
merkle      Trees over many leaves, and proofs of many leaves at once.

Nothing is imported here: who verifies a proof needs a hash and should not have to load a library of signatures.

What this does not do: keep secrets from whoever reads this process's memory; see `mesh.identity` for the key's file.
"""
