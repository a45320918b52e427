"""SuffixDecoding (Oliaro et al. 2025, arXiv 2411.04975): drafts from trees over past answers and over this request.

Both are suffix trees; prompts are in the request's own tree only. Every match length of the context's tail is tried, a
draft is at most `factor` times as long as its match, and the one with the most tokens expected to be right is taken.
What this does not protect against: as with a shared prefix cache, how fast an answer comes tells a client whether
somebody was answered alike before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import BadWeights, LocalError
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Want
from shoal.engine.drafts.saved import read_sequences, write_sequences
from shoal.engine.sequence import Sequence
from shoal.kernels.suffix_tree import MAX_BYTES_PER_TOKEN, Found, Limits, SuffixTree

_log = logging.getLogger(__name__)


LIMITS = Limits(cap=32, factor=1.0, offset=0.0, least=0.1)


@dataclass(frozen=True, slots=True)
class SuffixConfig:
    """memory bytes the tree of past answers may take; the oldest go first.

    file          where past answers are kept between runs, or None; `fingerprint` says of which model, and ids from
                  `vocab_size` on are foreign.
    kernel_cache  of the C library.
    """

    depth: int = 64
    limits: Limits = LIMITS
    memory: int = 64 << 20
    file: Path | None = None
    fingerprint: str = ""
    vocab_size: int = 2**31
    kernel_cache: Path | None = None


@dataclass(slots=True)
class _Own:
    tree: SuffixTree
    seen: int = 0


class SuffixDrafter:
    name = "suffix"

    def __init__(self, config: SuffixConfig | None = None) -> None:
        """Unsupported where the C library cannot be built. A file that cannot be used is left out with a warning."""
        self._config = config or SuffixConfig()
        self._past = self._tree()
        self._own: dict[Sequence, _Own] = {}
        self._max_tokens = self._config.memory // MAX_BYTES_PER_TOKEN
        self._load()

    @property
    def past(self) -> SuffixTree:
        """The tree of past answers."""
        return self._past

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        return [self._draft(want) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """Nothing: what is right becomes part of the sequence."""

    def forget(self, seq: Sequence, output: List[int]) -> None:
        """The answer joins the past ones."""
        self._own.pop(seq, None)
        self._remember(output)

    def close(self) -> None:
        """Save, if there is a file; failing to is a warning."""
        self._own.clear()
        if self._config.file is not None:
            try:
                write_sequences(self._config.file, self._config.fingerprint, self._past.sequences())
            except OSError as error:
                _log.warning("past answers could not be saved for drafting: %s", error)

    def _draft(self, want: Want) -> Draft:
        seq = want.seq
        if (own := self._own.get(seq)) is None:
            own = self._own[seq] = _Own(self._tree())
        own.tree.extend(seq.tokens, own.seen)
        own.seen = len(seq.tokens)
        limits = self._config.limits
        here, past = own.tree.look(limits), self._past.look(limits, seq.tokens)
        return _draft(here, "own", want.most) if here.score >= past.score else _draft(past, "past", want.most)

    def _remember(self, output: List[int]) -> None:
        if not 1 < len(output) <= self._max_tokens:
            return
        while self._past.num_tokens + len(output) > self._max_tokens:
            self._past.drop_oldest()
        self._past.extend(output)
        self._past.close()

    def _load(self) -> None:
        config = self._config
        if config.file is None or not config.file.exists():
            return
        try:
            for sequence in read_sequences(config.file, config.fingerprint, config.vocab_size):
                self._remember(sequence)
        except (OSError, BadWeights, LocalError) as error:
            _log.warning("past answers are not used for drafting, starting anew: %s", error)

    def _tree(self) -> SuffixTree:
        return SuffixTree(self._config.depth, self._config.kernel_cache)


def _draft(found: Found, source: str, most: int) -> Draft:
    if not found.tokens or most <= 0:
        return NOTHING
    return Draft(found.tokens[:most], found.probs[:most], source, found.match)
