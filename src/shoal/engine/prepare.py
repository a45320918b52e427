"""A request becomes a job's parts, or is refused: what can be wrong with it is found here, before it queues."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import ContextTooLong, InvalidRequest, LocalError, ModelNotFound
from shoal.core.request import Message, Request, Resume
from shoal.engine.approximate.budgets import Budgets
from shoal.engine.constraint import Matcher
from shoal.engine.evidence import Recorder, Take
from shoal.engine.job import Choice
from shoal.engine.language import Language
from shoal.engine.sampler import SamplerState
from shoal.engine.sequence import Sequence, int_array

MAX_PRIORITY = 1000
"""Either way. Each level is a head start of `ageing_steps` steps, so more would starve others after all."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`choices` share `seq` until the first fork; `echo` is the prompt's text where it is to be repeated.

    num_made  tokens at the end of `seq` that are already part of the answer (`Request.resume`).
    """

    seq: Sequence
    choices: list[Choice]
    max_tokens: int
    echo: str | None
    num_made: int = 0


@dataclass(frozen=True, slots=True)
class Witness:
    """`take` makes fingerprints of rows of the residual stream after `layer`, `hidden_size` wide."""

    take: Take
    layer: int
    hidden_size: int

    def recorder(self, prompt: list[int], made: tuple[int, ...], seed: int) -> Recorder:
        return Recorder(self.take, tuple(prompt), made, seed, self.hidden_size)


@dataclass(frozen=True, slots=True)
class Preparer:
    """limit: most tokens of a sequence. max_choices: of one request. vocab_size: rows of the runner's logits.

    budgets: what a request may leave out. witness: how activations are recorded where a receipt is asked for.
    """

    model: str
    language: Language
    limit: int
    max_choices: int
    vocab_size: int
    budgets: Budgets
    witness: Witness | None = None

    def prepare(self, request: Request, matcher: Matcher | None = None) -> Prepared:
        """InvalidRequest, ContextTooLong or ModelNotFound. Takes milliseconds to seconds (long prompts).

        matcher  what `Compiler.matcher` made of this request.
        """
        self._check(request)
        self._check_size(request)
        prompt = self.language.prompt(request)
        self.check_tokens(prompt, _param(request))
        max_tokens = self._max_tokens(request, len(prompt))
        made = self._made(request, prompt, max_tokens)
        stage = self.budgets.stage(request, len(prompt))
        seq = Sequence(int_array([*prompt, *made]), len(prompt) + max_tokens, priority=request.priority, stage=stage)
        if stage is not None and stage.depth:
            seq.outputs_from = len(prompt)  # the draft's pass answers nothing
        choices = self._choices(request, seq, prompt, max_tokens, matcher)
        if made and request.resume is not None:
            _replay(choices[0], made, request.resume)
        if request.receipt and self.witness is not None:
            seq.tap = self.witness.layer
            for choice in choices:
                choice.recorder = self.witness.recorder(prompt, made, choice.state.seed)
        echo = self.language.tokenizer.decode(prompt) if request.echo else None
        return Prepared(seq, choices, max_tokens, echo, len(made))

    def check_tokens(self, tokens: list[int], param: str) -> None:
        """InvalidRequest for none, or ids outside the vocabulary; ContextTooLong if no answer would fit behind."""
        if not tokens:
            raise InvalidRequest("expected at least one token, found an empty prompt", param)
        if not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            bad = next(token for token in tokens if not 0 <= token < self.vocab_size)
            raise InvalidRequest(f"token id {bad} is outside the vocabulary of {self.vocab_size}", param)
        if len(tokens) >= self.limit:
            raise ContextTooLong(f"expected fewer than {self.limit} tokens, found a prompt of {len(tokens)}", param)

    def _check(self, request: Request) -> None:
        if request.model != self.model:
            raise ModelNotFound(request.model, (self.model,))
        if not 1 <= request.n <= self.max_choices:
            raise InvalidRequest(f"n: expected 1 .. {self.max_choices}, found {request.n}", "n")
        if abs(request.priority) > MAX_PRIORITY:
            raise InvalidRequest(f"priority: expected at most ±{MAX_PRIORITY}, found {request.priority}", "priority")
        if request.receipt and self.witness is None:
            raise InvalidRequest("receipt: this engine signs nothing; ask a node that does", "receipt")
        if request.echo and request.sampling.logprobs is not None:
            raise InvalidRequest("echo: log-probabilities of a repeated prompt are not computed", "echo")
        if request.sampling.max_tokens is not None and request.sampling.max_tokens < (0 if request.echo else 1):
            raise InvalidRequest("max_tokens: expected at least 1 (0 with echo)", "max_tokens")

    def _check_size(self, request: Request) -> None:
        """Refuse text that cannot fit whatever its tokens are, before seconds are spent on making them."""
        prompt = request.prompt
        texts = [prompt] if isinstance(prompt, str) else [m.content for m in prompt if isinstance(m, Message)]
        num_chars = sum(map(len, texts))
        if num_chars > self.limit * self.language.longest_token:
            raise ContextTooLong(
                f"expected fewer than {self.limit} tokens, found {num_chars} characters, which are more",
                _param(request),
            )

    def _made(self, request: Request, prompt: list[int], max_tokens: int) -> tuple[int, ...]:
        """Tokens of the answer made elsewhere."""
        resume = request.resume
        if resume is None:
            return ()
        if request.n != 1 or request.echo or request.approximation is not None:
            raise InvalidRequest("resume: one choice at a time, without echo or approximation", "resume")
        if not 0 <= resume.choice < 2**16:
            raise InvalidRequest(f"resume: expected a choice in 0 .. 65535, found {resume.choice}", "resume")
        made = resume.tokens or tuple(self.language.tokenizer.encode(resume.text, add_special=False))
        if len(made) >= max_tokens:
            raise InvalidRequest(f"resume: the answer has {len(made)} tokens, its limit is {max_tokens}", "resume")
        self.check_tokens([*prompt, *made], "resume")
        return made

    def _max_tokens(self, request: Request, num_prompt: int) -> int:
        room = self.limit - num_prompt
        wanted = request.sampling.max_tokens
        if wanted is not None and wanted > room:
            raise ContextTooLong(
                f"expected at most {self.limit} tokens, found a prompt of {num_prompt} and max_tokens of {wanted}",
                _param(request),
            )
        return room if wanted is None else wanted

    def _choices(
        self, request: Request, seq: Sequence, prompt: list[int], max_tokens: int, matcher: Matcher | None
    ) -> list[Choice]:
        tokenizer = self.language.tokenizer
        vocab_size = min(self.vocab_size, tokenizer.vocab_size)
        begins = 0 if request.resume is None else request.resume.choice
        first = SamplerState(
            request.sampling,
            choice=begins,
            prompt=prompt,
            vocab_size=vocab_size,
            eos_ids=tokenizer.eos_ids,
            matcher=matcher,
        )
        states = [first, *(first.fork(index) for index in range(1, request.n))]
        return [
            Choice(state, self.language.answer(request, index, max_tokens, matcher is not None), seq)
            for index, state in enumerate(states, begins)
        ]


def _replay(choice: Choice, tokens: tuple[int, ...], resume: Resume) -> None:
    try:
        for token in tokens:
            choice.state.accept(token)
        choice.answer.replay(tokens, None if resume.tokens else resume.text)
    except LocalError as error:
        raise InvalidRequest(f"resume: these tokens are not the beginning of an answer: {error}", "resume") from error


def _param(request: Request) -> str:
    """What the API calls the field the prompt came from."""
    return "messages" if request.prompt and isinstance(request.prompt[0], Message) else "prompt"
