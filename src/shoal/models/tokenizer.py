"""Text to token ids and back, for every model: one class over the `tokenizers` library.

Rules that stay true in this file:
- `encode(text)` never yields a control token, whatever the text says: the encoder behind it has no control tokens in
  its vocabulary. They come from `parse_special=True` or `encode_parts`, which callers use only for text they wrote;
- `decode(ids)` is the tokens' raw bytes joined and decoded once (`errors="replace"`), so no character is ever broken.

What this does not protect against: tokens which a model's file declares as added but not as control (`<think>`,
`<tool_call>` in some files) are recognised in any text, as the model's own tokenizer does; the unknown token of
vocabularies without byte tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import tokenizers

from shoal.core.errors import InvalidRequest
from shoal.models import tokenizer_folder, tokenizer_gguf
from shoal.models.vocabulary import Encoders, Vocabulary

if TYPE_CHECKING:
    from shoal.models.checkpoint import TokenizerSource

_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """Immutable and safe to share between threads."""

    def __init__(self, vocabulary: Vocabulary, encoders: Encoders) -> None:
        self.vocabulary = vocabulary
        self.vocab_size = len(vocabulary.texts)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.eos_ids = vocabulary.eos_ids
        self.adds_bos = vocabulary.adds_bos
        self.adds_eos = vocabulary.adds_eos
        self.drops_space = vocabulary.drops_space
        self._encoders = encoders
        self._control_ids = frozenset(token.id for token in vocabulary.control.values())
        self._bytes: dict[int, bytes] = {}

    @cached_property
    def hf(self) -> tokenizers.Tokenizer:
        """The whole tokenizer, control tokens included, as the `tokenizers` library has it. Only to be read."""
        return self._encoders.full()

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids. `add_special` adds what the model expects around a text (usually a begin token, once).

        `parse_special` reads control tokens out of `text`: never set it for text that a user wrote.
        """
        ids = self.encode_parts(self.split_control(text) if parse_special else (text,))
        return self.add_special(ids) if add_special else ids

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Token ids of plain texts (str) between control tokens (int). Each text is encoded as one piece."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part:
                encoder = self._encoders.later if ids else self._encoders.first
                ids += encoder.encode(_SURROGATE.sub("\ufffd", part), add_special_tokens=False).ids
        return ids

    def add_special(self, ids: list[int]) -> list[int]:
        """`ids` with the begin token in front (unless it is there) and the end token behind, if the model wants any."""
        if self.adds_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids = [self.bos_id, *ids]
        if self.adds_eos and self.eos_id is not None:
            ids = [*ids, self.eos_id]
        return ids

    def split_control(self, text: str) -> list[str | int]:
        """`text` cut at its control tokens, the longest first where two begin at the same place."""
        parts: list[str | int] = []
        start = 0
        for match in self._control_pattern.finditer(text):
            parts += (text[start : match.start()], self._control_id(match))
            start = match.end()
        return [*parts, text[start:]]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of `ids`; InvalidRequest for an id outside the vocabulary."""
        pieces = [self.token_bytes(token) for token in ids if not (skip_special and self.is_special(token))]
        data = b"".join(pieces)
        if self.drops_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Raw bytes of one token; a control token's are its text. InvalidRequest outside the vocabulary."""
        data = self._bytes.get(token_id)
        if data is None:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequest(f"token id {token_id} is outside the vocabulary of {self.vocab_size}", "prompt")
            data = self._bytes[token_id] = self.vocabulary.bytes_of(token_id)
        return data

    def is_special(self, token_id: int) -> bool:
        """Whether `token_id` is a control token: it steers the model and is no part of its text."""
        return token_id in self._control_ids

    def token_id(self, text: str) -> int | None:
        """Id of the token whose file spells it `text`, or None."""
        return self._ids.get(text)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: token for token, text in enumerate(self.vocabulary.texts) if text}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted((text for text in self.vocabulary.control if text), key=len, reverse=True)
        return re.compile("|".join(self._pattern_of(text) for text in longest_first) or "(?!)")

    def _pattern_of(self, text: str) -> str:
        token = self.vocabulary.control[text]
        return (r"\s*" if token.eats_left else "") + re.escape(text) + (r"\s*" if token.eats_right else "")

    def _control_id(self, match: re.Match[str]) -> int:
        token = self.vocabulary.control.get(match[0]) or self.vocabulary.control[match[0].strip()]
        return token.id


def load_tokenizer(source: TokenizerSource) -> Tokenizer:
    """The tokenizer of a GGUF file or a model folder. BadWeights for a broken one, Unsupported for an unknown kind."""
    if source.kind == "gguf":
        return Tokenizer(*tokenizer_gguf.read(source.metadata))
    return Tokenizer(*tokenizer_folder.read(source.folder))
