"""A smaller model of the same vocabulary guesses, greedily, in a cache of its own.

It has a scheduler and a runner like the target's; each target sequence has a twin there, which is brought to the same
tokens before it guesses (wrong guesses are truncated, so only new tokens are computed). Guessing costs steps of the
small model: it is left out while what it has been right about lately does not pay for them, and tried again later.
Leviathan et al. 2023 (arXiv 2211.17192), with a deterministic draft: see `engine.verify`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as List
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from shoal.core.clock import Clock
from shoal.core.errors import BadConfig
from shoal.engine.batching import build_batch
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Want
from shoal.engine.plan import SchedulerConfig
from shoal.engine.runner import Runner
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, int_array
from shoal.models.tokenizer import Tokenizer

MAX_TOKENS = 8
"""Of a draft; models guess well a few tokens ahead only."""

LEAST = 0.2
"""A draft ends before a token that makes the whole less likely than this, in the draft model's own eyes."""

NEW = 0.05
"""Weight of a new measurement."""

RETRY_AFTER = 64
"""Steps without guesses until they are tried again."""


@dataclass(slots=True)
class _Twin:
    """`seq` holds the target's tokens, the first `num_certain` as of the last guess, then guesses."""

    seq: Sequence
    num_certain: int = 0
    drafted: int = 0


@dataclass(slots=True)
class _Record:
    """Running means: tokens of a draft, of them right, seconds of a step of the draft model."""

    drafted: float = 4.0
    accepted: float = 2.0
    step_s: float = 0.0
    skipped: int = 0


class ModelDrafter:
    def __init__(
        self, label: str, runner: Runner, clock: Clock, context_length: int, max_running: int, *, least: float = LEAST
    ) -> None:
        """Owns `runner`, and closes it."""
        self._least = least
        self.name = f"model:{label}"
        self._runner, self._clock, self._context = runner, clock, context_length
        self._scheduler = Scheduler(
            SchedulerConfig(
                block_size=runner.block_size, num_blocks=runner.num_blocks, max_running=max_running,
                max_batch_tokens=max(512, max_running), max_waiting=2**20, max_outputs=max(256, max_running),
            )
        )  # fmt: skip
        self._twins: dict[Sequence, _Twin] = {}
        self._record = _Record()

    @property
    def expected(self) -> float:
        """Tokens of a draft that have been right lately."""
        return self._record.accepted

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        fits = [want for want in wants if len(want.seq.tokens) + want.most < self._limit]
        if not fits or not self._pays(len(fits), times):
            return [NOTHING] * len(wants)
        guessed = self._guess(fits)
        return [guessed.get(want.seq, NOTHING) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        twin, record = self._twins.get(seq), self._record
        if twin is not None and twin.drafted:
            record.accepted += NEW * (num_accepted - record.accepted)
            record.drafted += NEW * (twin.drafted - record.drafted)
            twin.drafted = 0

    def forget(self, seq: Sequence, output: List[int]) -> None:
        if (twin := self._twins.pop(seq, None)) is not None:
            self._scheduler.finish(twin.seq)

    def close(self) -> None:
        self._runner.close()

    @property
    def _limit(self) -> int:
        return min(self._context, self._scheduler.capacity)

    def _pays(self, num: int, times: StepTimes) -> bool:
        """Whether tokens come faster with guesses, as far as is known; now and then yes, to find out."""
        record = self._record
        with_s = times(num + round(num * record.drafted)) + (record.drafted + 1) * record.step_s
        if (num + num * record.accepted) / with_s > num / times(num):
            return True
        record.skipped += 1
        return record.skipped % RETRY_AFTER == 0

    def _guess(self, wants: List[Want]) -> dict[Sequence, Draft]:
        """Step by step, one token more for every sequence whose guess still looks good."""
        twins = {want.seq: self._level(want.seq) for want in wants}
        tokens: dict[Sequence, list[int]] = {want.seq: [] for want in wants}
        probs: dict[Sequence, list[float]] = {want.seq: [] for want in wants}
        open_wants = list(wants)
        while open_wants:
            outputs = self._outputs(twins[want.seq].seq for want in open_wants)
            still_open = []
            for want in open_wants:
                token, p = outputs[twins[want.seq].seq]
                mine, chances = tokens[want.seq], probs[want.seq]
                chance = p * (chances[-1] if chances else 1.0)
                if chance < self._least:
                    continue
                mine.append(token)
                chances.append(chance)
                if len(mine) < min(want.most, MAX_TOKENS):
                    self._scheduler.append(twins[want.seq].seq, token)
                    still_open.append(want)
            open_wants = still_open
        for seq, twin in twins.items():
            twin.drafted = len(tokens[seq])
        return {seq: Draft(tuple(tokens[seq]), tuple(probs[seq]), "model") for seq in tokens if tokens[seq]}

    def _level(self, seq: Sequence) -> _Twin:
        """The twin of `seq`, with its tokens; the last of them is still to be computed."""
        if (twin := self._twins.get(seq)) is None:
            twin = self._twins[seq] = _Twin(Sequence(int_array(seq.tokens), self._limit), len(seq.tokens))
            self._scheduler.add(twin.seq)
            return twin
        mine = twin.seq
        guessed = zip(mine.tokens[twin.num_certain :], seq.tokens[twin.num_certain :], strict=False)
        right = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], guessed))
        keep = min(twin.num_certain + right, len(seq.tokens) - 1)
        self._scheduler.truncate(mine, keep)
        self._scheduler.append(mine, *seq.tokens[keep:])
        mine.outputs_from = len(mine.tokens) - 1
        twin.num_certain = len(seq.tokens)
        return twin

    def _outputs(self, seqs: Iterable[Sequence]) -> dict[Sequence, tuple[int, float]]:
        """The likeliest token behind each sequence and its probability, after as many steps as that takes."""
        found: dict[Sequence, tuple[int, float]] = {}
        missing = set(seqs)
        while missing - found.keys():
            began = self._clock.monotonic()
            plan = self._scheduler.schedule()
            if plan.copies:
                self._runner.copy_blocks(plan.copies)
            logits = self._runner.run(build_batch(plan, self._scheduler.config.block_size))
            self._scheduler.commit(plan)
            row = 0
            for entry in plan.entries:
                row += entry.num_outputs
                if entry.num_outputs and not entry.seq.num_pending:
                    found[entry.seq] = _likeliest(logits[row - 1])
            if plan.num_tokens == len(plan.entries):
                self._measure(self._clock.monotonic() - began)
        return found

    def _measure(self, step_s: float) -> None:
        record = self._record
        record.step_s += (NEW if record.step_s else 1.0) * (min(step_s, 4 * record.step_s or step_s) - record.step_s)


def _likeliest(logits: np.ndarray) -> tuple[int, float]:
    token = int(logits.argmax())
    return token, 1.0 / float(np.exp(logits - logits[token]).sum(dtype=np.float64))


def check_same_vocabulary(target: Tokenizer, draft: Tokenizer) -> None:
    """BadConfig unless every token id means the same in both."""
    if target.vocab_size != draft.vocab_size:
        raise BadConfig(
            "draft", f"expected a draft model with the target's {target.vocab_size} tokens, found {draft.vocab_size}"
        )
    ids = range(target.vocab_size)
    if different := [i for i in ids if target.token_bytes(i) != draft.token_bytes(i)]:
        first = different[0]
        raise BadConfig(
            "draft",
            f"expected a draft model with the target's vocabulary, found {len(different)} tokens that differ: "
            f"{first} is {draft.token_bytes(first)!r}, not {target.token_bytes(first)!r}",
        )
