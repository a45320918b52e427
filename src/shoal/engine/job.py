"""One request on its way: its choices, what it has cost, and where its chunks go.

The prompt is computed once. Its first output samples the first token of every choice; then the sequence is forked, so
that all choices share the prompt's blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk, Usage
from shoal.core.request import Request
from shoal.engine.adapters import BASE, Adapter
from shoal.engine.answer import Answer
from shoal.engine.drafts.speculator import Speculator
from shoal.engine.evidence import Recorder
from shoal.engine.mailbox import Courier, Mailbox
from shoal.engine.reading import Outputs, Reading
from shoal.engine.sampler import SamplerState
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence
from shoal.engine.verify import verify


@dataclass(slots=True)
class Desk:
    """What the worker lends during a step: where sequences, their owners and chunks go, and what time it is."""

    scheduler: Scheduler
    courier: Courier
    owners: dict[Sequence, Job | Reading]
    now: float = 0.0
    speculator: Speculator | None = None


@dataclass(slots=True, eq=False)
class Choice:
    state: SamplerState
    answer: Answer
    seq: Sequence
    recorder: Recorder | None = None


@dataclass(slots=True, eq=False)
class Job:
    """Times are monotonic seconds. `num_tokens` counts what was made elsewhere too, and `seq` begins with it."""

    request: Request
    seq: Sequence
    choices: list[Choice]
    mailbox: Mailbox
    submitted_at: float
    echo: str | None = None
    adapter: Adapter = BASE
    started_at: float | None = None
    first_token_at: float | None = None
    num_tokens: int = 0
    is_done: bool = False
    num_prompt: int = 0
    active: dict[Sequence, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_prompt = len(self.seq.tokens) - self.num_tokens

    def receive(self, seq: Sequence, outputs: Outputs, desk: Desk) -> int:
        """Sample what follows the certain tokens of `seq`, and continue or end its choices. Tokens made."""
        before = self.num_tokens
        if self.active:
            self._continue(self.active[seq], outputs, desk)
        else:
            last = outputs.last()
            for choice in self._branch(desk):
                self._continue(choice, last, desk)
        return self.num_tokens - before

    def _continue(self, choice: Choice, outputs: Outputs, desk: Desk) -> None:
        """One token, and as many more as its draft had right: row 0 follows the last certain token."""
        seq = choice.seq
        num_certain = len(seq.tokens) - seq.num_drafted
        drafted = seq.tokens[num_certain:]
        for made, sampled in enumerate(verify(outputs.logits, drafted, choice.state, outputs.best)):
            self.num_tokens += 1
            if choice.recorder is not None:
                choice.recorder.see(outputs.taps[made], outputs.logits[made], sampled.token_id)
            chunk = choice.answer.push(sampled)
            if choice.answer.finish_reason is not None:
                self._end(choice, desk, made + 1)
            if chunk is not None:
                self._post(_with_evidence(chunk, choice), desk)
            if choice.answer.finish_reason is not None:
                return
        if seq.num_drafted:
            desk.scheduler.settle(seq, num_certain + made)
        desk.scheduler.append(seq, sampled.token_id)

    def only_echo(self, now: float) -> list[Chunk]:
        """The whole answer where no token is wanted: the prompt's text, for each choice."""
        chunks = [_with_evidence(choice.answer.prompt_echo(self.echo or ""), choice) for choice in self.choices]
        return [*chunks[:-1], replace(chunks[-1], usage=self._usage(now))]

    def _post(self, chunk: Chunk, desk: Desk) -> None:
        if self.is_done:
            chunk = replace(chunk, usage=self._usage(desk.now))
        desk.courier.post(self.mailbox, chunk)

    def _branch(self, desk: Desk) -> list[Choice]:
        """The prompt is computed: one sequence for each choice."""
        self.first_token_at = desk.now
        for choice in self.choices[1:]:
            choice.seq = desk.scheduler.fork(self.seq)
            desk.owners[choice.seq] = self
        self.active = {choice.seq: choice for choice in self.choices}
        if self.echo is not None:
            for choice in self.choices:
                desk.courier.post(self.mailbox, choice.answer.prompt_echo(self.echo))
        return self.choices

    def _end(self, choice: Choice, desk: Desk, num_made: int) -> None:
        del self.active[choice.seq], desk.owners[choice.seq]
        desk.scheduler.finish(choice.seq)
        if desk.speculator is not None:
            desk.speculator.count_last(choice.seq, num_made)
            desk.speculator.forget(choice.seq, choice.state.tokens)
        self.is_done = not self.active

    def _usage(self, now: float) -> Usage:
        started = now if self.started_at is None else self.started_at
        return Usage(
            prompt_tokens=self.num_prompt,
            completion_tokens=self.num_tokens,
            cached_tokens=max(0, self.seq.num_cached),
            queue_s=started - self.submitted_at,
            ttft_s=(now if self.first_token_at is None else self.first_token_at) - self.submitted_at,
            duration_s=now - self.submitted_at,
        )


def _with_evidence(chunk: Chunk, choice: Choice) -> Chunk:
    """The last chunk of a choice carries what was recorded of it."""
    if choice.recorder is None or chunk.finish_reason is None:
        return chunk
    return replace(chunk, evidence=choice.recorder.evidence())
