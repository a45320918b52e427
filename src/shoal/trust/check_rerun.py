"""Run an answer again, teacher-forced: its prompt and tokens as prefill, 32 at a time, and what each position shows.

    context   [ 0 ....... P - 1 + begins )            no outputs wanted
    rows      [ P - 1 + begins ... P - 1 + T )        the row at P - 1 + t led to output token t

Each row gives what the receipt's fingerprint was made of (the state after the last layer and the chosen token's raw
logit), and a gap: how far the sampler, fed with this row's logits and the receipt's seed, is from choosing the token
that was returned. Gaps bind tokens to activations: whoever computes true activations for other tokens has large ones.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from shoal.core.errors import InvalidRequest, LocalError, PeerFault, RemoteError
from shoal.core.receipt import SEGMENT_TOKENS, ModelIdentity, Opening, Receipt
from shoal.core.request import Request, Sampling
from shoal.engine.reading import Keep, Outputs
from shoal.engine.sampler import SamplerState, uniform
from shoal.engine.truncation import kept
from shoal.trust.fingerprint import distances, fingerprint, logit_errors


class Readable(Protocol):
    """What is asked of a session of the engine."""

    async def append(self, tokens: Sequence[int]) -> np.ndarray: ...

    async def read(self, tokens: Sequence[int], keep: Keep, layer: int) -> np.ndarray: ...

    async def drop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One choice to run again: what the receipt and its opening say of it."""

    request: Request
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    begins: int
    choice: int

    @property
    def num_tokens(self) -> int:
        """That this answerer chose itself."""
        return len(self.tokens) - self.begins

    @property
    def num_rerun(self) -> int:
        """Tokens that running it again computes."""
        return len(self.prompt) + len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class Rerunner:
    """A model here that can run answers again.

    identity  of the model, and of the arithmetic it is run in.
    session   an empty one, at a priority behind every request.
    prompt    token ids of a request, template and all; state: the sampler's, fresh, for a question. Both may take their
              time (long prompts, grammars), so they are called in a thread. InvalidRequest where a request is none.
    pause     awaited between two pieces of work: returns when nobody's request is kept waiting.
    """

    identity: ModelIdentity
    num_layers: int
    session: Callable[[], Awaitable[Readable]]
    prompt: Callable[[Request], Sequence[int]]
    state: Callable[[Question], SamplerState]
    pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)

    async def rerun(self, question: Question) -> Rerun:
        """Every position that the answerer chose. ContextTooLong, InvalidRequest, LocalError as sessions do.

        PeerFault for tokens that no sampler of this model chooses.
        """
        whole = [*question.prompt, *question.tokens]
        first, last = len(question.prompt) - 1 + question.begins, len(whole) - 1
        state = await asyncio.to_thread(self.state, question)
        if not all(0 <= token < state.vocab_size for token in question.tokens):
            raise PeerFault(f"expected tokens below {state.vocab_size}, found others")
        seen = _Seen(whole, len(question.prompt), state)
        seen.accept_until(question.begins)
        session = await self.session()
        try:
            for start in range(0, first, SEGMENT_TOKENS):
                await session.append(whole[start : min(first, start + SEGMENT_TOKENS)])
                await self.pause()
            rows = []
            for start in range(first, last, SEGMENT_TOKENS):
                rows.append(await session.read(whole[start : min(last, start + SEGMENT_TOKENS)], seen, self.num_layers))
                await self.pause()
        finally:
            await session.drop()
        return _rerun(rows, question)


FindRerunner = Callable[[Request], Awaitable[Rerunner]]
"""For what a request asks for: its adapter decides. InvalidRequest where this node does not have it."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """fingerprints: one for each 32 tokens. gaps (n,): see `gap`."""

    fingerprints: tuple[bytes, ...]
    gaps: np.ndarray


@dataclass(frozen=True, slots=True)
class Differences:
    """At each position the answerer chose, (n,) each: direction of the state, raw logit (nats), sampler's gap."""

    drift: np.ndarray
    logit: np.ndarray
    gap: np.ndarray


def differences(claimed: Sequence[bytes], rerun: Rerun) -> Differences:
    """ValueError where the claimed fingerprints are not of as many tokens, or none at all."""
    pairs = list(zip(claimed, rerun.fingerprints, strict=True))
    return Differences(
        np.concatenate([distances(*pair) for pair in pairs]),
        np.concatenate([logit_errors(*pair) for pair in pairs]),
        rerun.gaps,
    )


def question(receipt: Receipt, opening: Opening, place: int) -> Question:
    """Of `receipt.outputs[place]`. InvalidRequest where the opening lacks what it takes to run the answer again."""
    if not 0 <= place < len(receipt.outputs) or len(opening.outputs) != len(receipt.outputs):
        raise InvalidRequest(f"expected {len(receipt.outputs)} outputs in the opening, found {len(opening.outputs)}")
    output, tokens = receipt.outputs[place], opening.outputs[place].tokens
    if receipt.approximation is not None:
        raise InvalidRequest("the answer was approximated on purpose; a full run differs, so it tells nothing")
    if opening.request is None or not opening.prompt or not tokens:
        raise InvalidRequest("expected an opening with request, prompt and tokens; this one hides them")
    if len(tokens) != output.num_tokens or not 0 <= output.begins <= output.num_tokens:
        raise InvalidRequest(f"expected {output.num_tokens} tokens, found {len(tokens)}")
    sampling = replace(opening.request.sampling, seed=receipt.sampling.seed)
    return Question(replace(opening.request, sampling=sampling), opening.prompt, tokens, output.begins, output.choice)


class _Seen:
    """A `Keep`: (rows, hidden + 2) of states, the chosen tokens' raw logits and gaps, in order of position."""

    def __init__(self, whole: Sequence[int], num_prompt: int, state: SamplerState) -> None:
        self._whole, self._num_prompt, self._state = whole, num_prompt, state
        self._is_broken = False

    def accept_until(self, count: int) -> None:
        for token in self._whole[self._num_prompt : self._num_prompt + count]:
            self._accept(token)

    def __call__(self, outputs: Outputs) -> np.ndarray:
        count = len(outputs.logits)
        tokens = self._whole[outputs.start + 1 : outputs.start + 1 + count]
        chosen = outputs.logits[np.arange(count), tokens]
        gaps = [self._gap(row, token) for row, token in zip(outputs.logits, tokens, strict=True)]
        return np.column_stack([outputs.taps, chosen, np.array(gaps, np.float32)])

    def _gap(self, row: np.ndarray, token: int) -> float:
        found = 1.0 if self._is_broken else gap(row, self._state, token)
        self._accept(token)
        return found

    def _accept(self, token: int) -> None:
        try:
            if not self._is_broken:
                self._state.accept(token)
        except (LocalError, RemoteError):  # the grammar forbids it: neither this nor what follows was sampled
            self._is_broken = True


def gap(row: np.ndarray, state: SamplerState, token: int) -> float:
    """In [0, 1]: 0 where the sampler chooses `token` from these logits.

    Greedy: 1 - p(token) / p(best). Else the distance, in probability, between the number drawn and the token's place
    in the cumulative distribution: noise that moves probability by d leaves gaps of at most d.
    """
    if token >= state.vocab_size:
        return 1.0
    logits = state.adjust(row[: state.vocab_size])
    best = float(logits.max())
    if not math.isfinite(best) or logits[token] == -np.inf:
        return 1.0
    if state.sampling.temperature == 0:
        return 1.0 - math.exp(float(logits[token]) - best)
    drawn = uniform(state.seed, state.choice, state.num_tokens)
    return _distance(logits, state.sampling, token, drawn)


def _distance(logits: np.ndarray, sampling: Sampling, token: int, drawn: float) -> float:
    ids = kept(logits, sampling)
    values = logits if ids is None else logits[ids]
    weights = np.exp((values - values.max()) / np.float32(max(sampling.temperature, 1e-30)), dtype=np.float32)
    at = token if ids is None else int(np.searchsorted(ids, token))
    is_kept = at < len(values) and (ids is None or ids[at] == token)
    total = float(weights.sum(dtype=np.float64))
    low = float(weights[:at].sum(dtype=np.float64)) / total
    high = low + (float(weights[at]) / total if is_kept else 0.0)
    return max(0.0, low - drawn, drawn - high)


def _rerun(rows: list[np.ndarray], question: Question) -> Rerun:
    tokens = question.tokens[question.begins :]
    pieces = [tokens[start : start + SEGMENT_TOKENS] for start in range(0, len(tokens), SEGMENT_TOKENS)]
    prints = [fingerprint(part[:, :-2], part[:, -2], piece) for part, piece in zip(rows, pieces, strict=True)]
    return Rerun(tuple(prints), np.concatenate([part[:, -1] for part in rows]).astype(np.float64))


def sampler_state(vocab_size: int, eos_ids: frozenset[int], question: Question) -> SamplerState:
    """For requests without a grammar; InvalidRequest as the sampler raises."""
    request = question.request
    return SamplerState(
        request.sampling, choice=question.choice, prompt=question.prompt, vocab_size=vocab_size, eos_ids=eos_ids
    )
