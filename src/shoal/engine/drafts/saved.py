"""Token sequences in a file: what a drafter remembers between runs. Whole and of the right tokenizer, or refused.

    "SHOALDRAFTS" version:u8 | sha256 of the rest | sha256 of the fingerprint | count u32, lengths u32 | tokens i32

Little-endian. The file holds what the model answered, as token ids: it is readable by its owner only.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shoal.core.errors import BadWeights

MAGIC = b"SHOALDRAFTS\x01"
_HASH = 32


def write_sequences(path: Path, fingerprint: str, sequences: Sequence[array[int]]) -> None:
    """Replace `path` in one rename. OSError as the system raises it."""
    lengths = np.array([len(sequences), *map(len, sequences)], "<u4").tobytes()
    tokens = b"".join(np.asarray(sequence, "<i4").tobytes() for sequence in sequences)
    body = hashlib.sha256(fingerprint.encode()).digest() + lengths + tokens
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def read_sequences(path: Path, fingerprint: str, vocab_size: int) -> list[array[int]]:
    """What was written. BadWeights for another version or fingerprint, a file that is not whole, or foreign tokens."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise BadWeights(str(path), "header", f"saved drafts of version {MAGIC[-1]}", f"{data[: len(MAGIC)]!r}")
    digest, body = data[len(MAGIC) : len(MAGIC) + _HASH], data[len(MAGIC) + _HASH :]
    if hashlib.sha256(body).digest() != digest:
        raise BadWeights(str(path), "checksum", "that of its content", "another: the file is damaged; delete it")
    if body[:_HASH] != hashlib.sha256(fingerprint.encode()).digest():
        raise BadWeights(str(path), "fingerprint", f"drafts for {fingerprint!r}", "those of another model")
    count = int(np.frombuffer(body, "<u4", 1, _HASH)[0])
    lengths = np.frombuffer(body, "<u4", count, _HASH + 4)
    tokens = np.frombuffer(body, "<i4", int(lengths.sum()), _HASH + 4 + 4 * count)
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise BadWeights(str(path), "tokens", f"ids below {vocab_size}", f"{tokens.min()} .. {tokens.max()}")
    return [array("i", part.tolist()) for part in np.split(tokens, np.cumsum(lengths)[:-1])] if count else []
