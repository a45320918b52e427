"""What is known about each token id, apart from how text is cut: raw bytes, control tokens, end tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import tokenizers

from shoal.models import byte_level

END_TEXTS = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
     "<|end_of_text|>", "<EOT>", "_<EOT>", "<|end_of_turn|>"}
)  # fmt: skip
"""Texts that end a turn wherever they are tokens: files often name only one of a model's several end tokens."""

SPACE = "\u2581"
"""SentencePiece's visible space."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Alphabet = Literal["byte_level", "sentencepiece"]


@dataclass(frozen=True, slots=True)
class Control:
    """A control token. `eats_left`, `eats_right`: white space beside it in the text belongs to it."""

    id: int
    eats_left: bool = False
    eats_right: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """texts[id] is the token as its file writes it ("" for an id without a token).

    verbatim       ids whose text is literal: control and added tokens. The rest is written in `alphabet`.
    control        text -> control token.
    bos_id, eos_id the file's own; `eos_ids` every token that ends an answer.
    drops_space    decoding drops one space at the very start (SentencePiece puts one there when encoding).
    """

    texts: tuple[str, ...]
    alphabet: Alphabet
    verbatim: frozenset[int]
    control: Mapping[str, Control]
    bos_id: int | None
    eos_id: int | None
    eos_ids: frozenset[int]
    adds_bos: bool
    adds_eos: bool = False
    drops_space: bool = False
    has_byte_tokens: bool = False

    def bytes_of(self, token_id: int) -> bytes:
        text = self.texts[token_id]
        if token_id in self.verbatim:
            return text.encode("utf-8", "replace")
        if self.alphabet == "byte_level":
            return byte_level.to_bytes(text)
        if self.has_byte_tokens and (match := _BYTE_TOKEN.fullmatch(text)):
            return bytes([int(match[1], 16)])
        return text.replace(SPACE, " ").encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Encoders:
    """`first` encodes text at the start, `later` text after a control token; neither has control tokens.

    `full` builds the model's tokenizer with everything in it, which costs as much again, so only when it is asked for.
    """

    first: tokenizers.Tokenizer
    later: tokenizers.Tokenizer
    full: Callable[[], tokenizers.Tokenizer]
