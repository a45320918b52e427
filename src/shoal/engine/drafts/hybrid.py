"""Suffix trees where they expect to be right about more tokens than the draft model has been lately, else the model.

Section 4.3 of SuffixDecoding (arXiv 2411.04975), with the model's own running mean for the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence as List

from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import Draft, Want
from shoal.engine.drafts.model import ModelDrafter
from shoal.engine.drafts.suffix import SuffixDrafter
from shoal.engine.sequence import Sequence


class HybridDrafter:
    def __init__(self, suffix: SuffixDrafter, model: ModelDrafter) -> None:
        """Owns both."""
        self._suffix, self._model = suffix, model
        self.name = f"hybrid:{model.name.removeprefix('model:')}"

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        drafts = list(self._suffix.propose(wants, times))
        weak = [index for index, draft in enumerate(drafts) if draft.score < self._model.expected]
        guessed = self._model.propose([wants[index] for index in weak], times)
        for index, guess in zip(weak, guessed, strict=True):
            if guess.tokens:
                drafts[index] = guess
        return drafts

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """For the model, where it was the one that guessed."""
        self._model.learn(seq, num_accepted)

    def forget(self, seq: Sequence, output: List[int]) -> None:
        self._suffix.forget(seq, output)
        self._model.forget(seq, output)

    def close(self) -> None:
        self._suffix.close()
        self._model.close()
