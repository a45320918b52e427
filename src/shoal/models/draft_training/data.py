"""Windows of tokens for each step, drawn by the step's number alone: resuming needs no random state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.models.draft_training.outputs import Output
from shoal.models.draft_training.plan import Plan


@dataclass(frozen=True, slots=True)
class Corpus:
    """One long run. tokens int32 (n,); counts bool (n,): whether predicting that token counts."""

    tokens: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, slots=True)
class Window:
    """inputs and targets int64 (batch, length); counts bool (batch, length): targets that the loss is made of."""

    inputs: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, slots=True)
class Data:
    """Text for the first steps, the target's outputs for the rest."""

    text: Corpus
    outputs: Corpus

    def window(self, plan: Plan, step: int) -> Window:
        """What step number `step` sees."""
        return draw(self.text if step < plan.pretrain_steps else self.outputs, plan, step)

    def frequent(self, vocab_size: int, count: int) -> np.ndarray:
        """The `count` most frequent tokens, those of the outputs counted tenfold; int64, sorted."""
        share = np.bincount(self.text.tokens, minlength=vocab_size)
        share = share + 10 * np.bincount(self.outputs.tokens, minlength=vocab_size)
        return np.sort(np.argsort(-share, kind="stable")[:count])


def text_corpus(tokens: np.ndarray) -> Corpus:
    """Every token counts."""
    return Corpus(tokens, np.ones(len(tokens), bool))


def output_corpus(outputs: Sequence[Output]) -> Corpus:
    """Prompts are context; what the target said counts."""
    if not outputs:
        return Corpus(np.zeros(0, np.int32), np.zeros(0, bool))
    parts = [part for output in outputs for part in (output.prompt, output.tokens)]
    counts = [np.full(len(part), bool(index % 2)) for index, part in enumerate(parts)]
    return Corpus(np.concatenate([np.array(part, np.int32) for part in parts]), np.concatenate(counts))


def draw(corpus: Corpus, plan: Plan, step: int) -> Window:
    """`plan.batch` windows of a corpus; one shorter than a window is repeated."""
    needed = plan.length + 1
    repeats = -(-needed // len(corpus.tokens))
    tokens, counts = (np.tile(array, repeats) if repeats > 1 else array for array in (corpus.tokens, corpus.counts))
    starts = np.random.default_rng([plan.seed, step]).integers(len(tokens) - needed + 1, size=plan.batch)
    rows = starts[:, None] + np.arange(needed)
    window = tokens[rows].astype(np.int64)
    return Window(window[:, :-1], window[:, 1:], counts[rows[:, 1:]])
