"""Keys, signatures and hashes: the words of trust, over well-kept libraries; no cipher of our own.

keys    Ed25519 keys and their signatures.
hashes  BLAKE3 with a purpose in every hash, so that no digest can be mistaken for another's.

What this does not do: keep secrets from whoever reads this process's memory; see `mesh.identity` for the key's file.
"""

from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PrivateKey, is_signature

__all__ = ["PrivateKey", "blake3_digest", "is_signature"]
