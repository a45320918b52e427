"""Prompt lookup (Saxena 2023): what followed the last n tokens when they occurred before in prompt and output."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass, field

from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Want
from shoal.engine.sequence import Sequence

MAX_GRAM = 3
"""Longest run matched, then shorter ones: the usual setting of others (vLLM's examples, transformers' 2)."""

MAX_TOKENS = 10
"""Of a draft, as in transformers."""

CONFIDENCE = (0.0, 0.4, 0.6, 0.8)
"""First guess of the chance that a token is right, by length of the match; the policy learns the real one."""


@dataclass(slots=True)
class _Index:
    """Where each run of 1 .. MAX_GRAM tokens last ended, and before that, in the first `seen` tokens."""

    ends: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    seen: int = 0


class LookupDrafter:
    name = "lookup"

    def __init__(self, max_gram: int = MAX_GRAM, max_tokens: int = MAX_TOKENS) -> None:
        self._max_gram, self._max_tokens = max_gram, max_tokens
        self._indices: dict[Sequence, _Index] = {}

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        return [self._draft(want) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """Nothing: what is right becomes part of the sequence."""

    def forget(self, seq: Sequence, output: List[int]) -> None:
        self._indices.pop(seq, None)

    def close(self) -> None:
        self._indices.clear()

    def _draft(self, want: Want) -> Draft:
        tokens = want.seq.tokens
        index = self._indices.setdefault(want.seq, _Index())
        self._read(index, tokens)
        for size in range(min(self._max_gram, len(tokens) - 1), 0, -1):
            before = index.ends[tuple(tokens[-size:])][1]
            if before:
                found = tuple(tokens[before : before + min(want.most, self._max_tokens)])
                confidence = CONFIDENCE[min(size, len(CONFIDENCE) - 1)]
                return Draft(found, tuple(confidence**i for i in range(1, len(found) + 1)), "lookup", size)
        return NOTHING

    def _read(self, index: _Index, tokens: List[int]) -> None:
        for end in range(index.seen + 1, len(tokens) + 1):
            for size in range(1, min(self._max_gram, end) + 1):
                gram = tuple(tokens[end - size : end])
                index.ends[gram] = (end, index.ends.get(gram, (0, 0))[0])
        index.seen = len(tokens)
