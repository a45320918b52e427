"""What the target is asked, for its answers to look like those it will give: turns it makes up, and texts to work on.

A chat model is shown the beginning of a user's turn and writes the rest itself (Magpie, 2406.08464): the only source
of prompts that needs no data. Every other prompt shows it a piece of the training text. A model without a template
continues pieces of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shoal.core.request import Message
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import Tokenizer

TASKS = (
    "Summarize the following text in a few sentences.\n\n{}", "Continue the following text.\n\n{}",
    "Explain what this is about.\n\n{}", "Rewrite this more clearly.\n\n{}",
    "Write a short question about this text, then answer it.\n\n{}", "List the main points of this text.\n\n{}",
)  # fmt: skip

SNIPPET_TOKENS = 96
PLAIN_TOKENS = 32


class Prompts:
    """Prompt number i as token ids, the same for the same seed.

    opening  what comes before a user's own words; empty where the model has no template.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, text: np.ndarray, seed: int = 0) -> None:
        self._tokenizer, self._template, self._text, self._seed = tokenizer, template, text, seed
        self.opening = [] if template is None else _opening(template.encode)

    def fixed(self, index: int) -> list[int] | None:
        """Prompt `index`, or None where the target makes it up: see `around`."""
        if self._template is None:
            return self._tokenizer.add_special(self._snippet(index, PLAIN_TOKENS))
        if index // 4 % 2 == 0:  # both kinds meet all four temperatures
            return None
        task = TASKS[index // 8 % len(TASKS)]
        text = self._tokenizer.decode(self._snippet(index, SNIPPET_TOKENS))
        return self._template.encode((Message("user", task.format(text)),))

    def around(self, question: Sequence[int]) -> list[int]:
        """The prompt whose user's turn is what the target wrote after `opening`."""
        assert self._template is not None
        return self._template.encode((Message("user", self._tokenizer.decode(question).strip() or "Hello!"),))

    def _snippet(self, index: int, length: int) -> list[int]:
        start = np.random.default_rng([self._seed, index]).integers(max(1, len(self._text) - length))
        return [int(token) for token in self._text[start : start + length]]


def _opening(encode: Callable[[tuple[Message, ...]], list[int]]) -> list[int]:
    """What two conversations have in common until their users say different things."""
    first, second = (encode((Message("user", text),)) for text in ("Alpha", "42"))
    count = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[:count]
