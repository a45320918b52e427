"""Text files as one long run of token ids, documents apart by the model's end token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shoal.core.errors import BadConfig
from shoal.models.tokenizer import Tokenizer

PIECE_CHARS = 1 << 16
"""A document is encoded in pieces of about this size, cut at line ends, so that a huge file costs little memory."""


def text_files(given: Sequence[Path]) -> list[Path]:
    """The files, and those below the folders, in order. BadConfig for one that is not there, or if there is none."""
    if missing := [path for path in given if not path.exists()]:
        raise BadConfig("--text", f"expected files or folders of text, found nothing at {str(missing[0])!r}")
    files = [item for path in given for item in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [path for path in files if path.is_file()]
    if not files:
        raise BadConfig("--text", "expected at least one file of text to train on; give some with --text FILE")
    return files


def encode_files(files: Iterable[Path], tokenizer: Tokenizer, dtype: type = np.int32) -> np.ndarray:
    """int32 (tokens,). BadConfig for a file that is not UTF-8 text, and where all are empty."""
    ids: list[int] = []
    for path in files:
        for piece in _pieces(_read(path)):
            ids += tokenizer.encode(piece)
        if tokenizer.eos_id is not None:
            ids.append(tokenizer.eos_id)
    if len(ids) < 2:
        raise BadConfig("--text", "expected some text to train on, found only empty files")
    return np.array(ids, dtype)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig("--text", f"{path}: expected UTF-8 text, found {error}") from error


def _pieces(text: str) -> Iterable[str]:
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        size += len(line)
        if size >= PIECE_CHARS:
            yield "".join(piece)
            piece, size = [], 0
    yield "".join(piece)
