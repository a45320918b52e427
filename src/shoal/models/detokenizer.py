"""Token ids to text as they come, one complete character at a time.

The rule that stays true: after any tokens, all `push` results and `flush` joined are exactly the tokens' raw bytes
joined and decoded once with `errors="replace"`; what was emitted is never taken back. Control tokens yield no text.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.models.tokenizer import Tokenizer


class Detokenizer:
    """State is at most three bytes and one flag, so a `fork` costs nothing.

    show      control tokens whose text is wanted after all (a tool-call marker that is a control token).
    at_start  the first token begins a text, so SentencePiece's leading space is dropped; False where the tokens
              continue a text (`/v1/completions`).
    """

    __slots__ = ("_at_start", "_pending", "_show", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, *, show: frozenset[int] = frozenset(), at_start: bool = True) -> None:
        self._tokenizer = tokenizer
        self._show = show
        self._at_start = at_start and tokenizer.drops_space
        self._pending = b""

    def push(self, token_id: int) -> str:
        """Text completed by this token, often none. Ids the vocabulary lacks (padding rows) yield none."""
        tokenizer = self._tokenizer
        if token_id >= tokenizer.vocab_size or (tokenizer.is_special(token_id) and token_id not in self._show):
            return ""
        data = tokenizer.token_bytes(token_id)
        if self._at_start and data:
            self._at_start = False
            data = data[1:] if data.startswith(b" ") else data
        text, used = codecs.utf_8_decode(self._pending + data, "replace", False)
        self._pending = (self._pending + data)[used:]
        return text

    def flush(self) -> str:
        """What an unfinished character leaves: U+FFFD, or nothing. Afterwards the state is empty."""
        text, _ = codecs.utf_8_decode(self._pending, "replace", True)
        self._pending = b""
        return text

    def fork(self) -> Detokenizer:
        """An independent copy of the state as it is now."""
        other = Detokenizer(self._tokenizer, show=self._show)
        other._at_start = self._at_start
        other._pending = self._pending
        return other

    __copy__ = fork
