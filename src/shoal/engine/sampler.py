"""From logits to tokens. Each row depends on its own logits and state alone, so batching cannot change an answer.

Order of operations on a row: logit_bias, penalties, grammar mask, end tokens masked before min_tokens, temperature,
top_k, top_p, min_p, draw. The randomness of position t in choice c is a hash of (seed, c, t): nothing is consumed, so
forking and rolling back need no care.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.request import Sampling
from shoal.engine.penalties import Penalties
from shoal.engine.truncation import check, choose, largest_k

if TYPE_CHECKING:
    from shoal.engine.constraint import Matcher

_MASK64 = 2**64 - 1
_BOUND = np.array([-np.inf, np.inf], np.float32)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token. Where log-probabilities were asked for, `logprob` is its own and `top` the most likely tokens'.

    They are the log-softmax (nats) of the raw logits: before bias, penalties, masks, temperature and truncation.
    """

    token_id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class SamplerState:
    """What sampling one choice needs to remember: the tokens it accepted, their counts and the grammar's state."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        choice: int,
        prompt: Sequence[int],
        vocab_size: int,
        eos_ids: frozenset[int],
        matcher: Matcher | None = None,
    ) -> None:
        """InvalidRequest for parameters out of range. Logits from `vocab_size` on are padding and never chosen."""
        check_sampling(sampling, vocab_size)
        self.sampling = sampling
        self.choice = choice
        self.seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self.vocab_size = vocab_size
        self.matcher = matcher
        self.penalties = Penalties(sampling, prompt, vocab_size)
        self._tokens: list[int] = []
        ends = set(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else eos_ids)
        self._ends = np.array(sorted(token for token in ends if token < vocab_size), np.int64)
        self._bias_ids = np.array(list(sampling.logit_bias), np.int64)
        self._bias = np.array(list(sampling.logit_bias.values()), np.float32)
        self.is_plain = (
            sampling.temperature == 0
            and sampling.logprobs is None
            and matcher is None
            and not (sampling.logit_bias or self.penalties.is_active)
        )

    @property
    def num_tokens(self) -> int:
        """Tokens accepted: the position that the next `sample` decides."""
        return len(self._tokens)

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens accepted, a view."""
        return self._tokens

    def accept(self, token: int) -> None:
        """`token` is the next of the output. LocalError if the grammar does not allow it."""
        if self.matcher is not None:
            self.matcher.accept(token)
        self.penalties.add(token)
        self._tokens.append(token)

    def rollback(self, n: int) -> None:
        """Undo the last n accepted tokens, in the grammar too."""
        if not 0 <= n <= len(self._tokens):
            raise LocalError(f"cannot undo {n} tokens: {len(self._tokens)} were accepted")
        if self.matcher is not None:
            self.matcher.rollback(n)
        for _ in range(n):
            self.penalties.remove(self._tokens.pop())

    def fork(self, choice: int) -> SamplerState:
        """An independent state with the same history and seed, that draws as `choice` from here on."""
        twin = copy(self)
        twin.choice = choice
        twin.matcher = None if self.matcher is None else self.matcher.fork()
        twin.penalties = self.penalties.fork()
        twin._tokens = self._tokens.copy()
        return twin

    def adjust(self, raw: np.ndarray) -> np.ndarray:
        """Raw logits (vocab,) with bias, penalties and masks; `raw` itself where nothing applies, never changed."""
        hides_ends = self.num_tokens < self.sampling.min_tokens and len(self._ends) > 0
        if not (len(self._bias) or self.penalties.is_active or self.matcher or hides_ends):
            return raw
        logits = raw.copy()
        logits[self._bias_ids] += self._bias
        if self.penalties.is_active:
            self.penalties.apply(logits)
        if self.matcher is not None:
            np.minimum(logits, np.take(_BOUND, self._allowed(self.matcher, hides_ends).view(np.uint8)), out=logits)
            return logits
        if hides_ends:
            logits[self._ends] = -np.inf
        return logits

    def _allowed(self, matcher: Matcher, hides_ends: bool) -> np.ndarray:
        """The grammar's mask, without end tokens if hidden; a grammar that can only end overrules min_tokens."""
        allowed = matcher.mask()
        if not hides_ends:
            return allowed
        rest = allowed.copy()
        rest[self._ends] = False
        return rest if rest.any() else allowed


def sample_best(best: int, state: SamplerState) -> Sampled | None:
    """As `sample` of a row whose first largest logit is `best`, all of them finite; None where that does not decide."""
    if state.is_plain and 0 <= best < state.vocab_size and state.num_tokens >= state.sampling.min_tokens:
        return Sampled(best)
    return None


def sample(logits: np.ndarray, states: Sequence[SamplerState]) -> list[Sampled]:
    """One token for each row of `logits`, float32 (len(states), at least vocab_size); nothing is changed or accepted.

    LocalError for a NaN or infinite logit and where every token is masked.
    """
    return [_sample_row(row, state) for row, state in zip(logits, states, strict=True)]


def uniform(seed: int, choice: int, position: int) -> float:
    """In [0, 1), 53 bits: a hash of its arguments (splitmix64, Steele et al. 2014); seeds count modulo 2**64."""
    mixed = 0
    for word in (seed, choice, position):
        mixed = _splitmix64((mixed + word) & _MASK64)
    return (mixed >> 11) * 2.0**-53


def check_sampling(sampling: Sampling, vocab_size: int) -> None:
    """InvalidRequest, naming the parameter, for a value out of its range."""
    for name, is_valid, expected in (
        ("temperature", 0 <= sampling.temperature < math.inf, "a finite number >= 0"),
        ("top_k", sampling.top_k >= 0, "an integer >= 0"),
        ("top_p", 0 < sampling.top_p <= 1, "a number in (0, 1]"),
        ("min_p", 0 <= sampling.min_p <= 1, "a number in [0, 1]"),
        ("repetition_penalty", 0.01 <= sampling.repetition_penalty <= 100, "a number in 0.01 .. 100"),
        ("frequency_penalty", math.isfinite(sampling.frequency_penalty), "a finite number"),
        ("presence_penalty", math.isfinite(sampling.presence_penalty), "a finite number"),
        ("logit_bias", all(value < math.inf for value in sampling.logit_bias.values()), "numbers as values"),
        ("logit_bias", all(0 <= token < vocab_size for token in sampling.logit_bias), f"token ids < {vocab_size}"),
        ("stop_token_ids", all(0 <= token < vocab_size for token in sampling.stop_token_ids), f"ids < {vocab_size}"),
        ("min_tokens", sampling.min_tokens >= 0, "an integer >= 0"),
        ("logprobs", 0 <= (sampling.logprobs or 0) <= vocab_size, f"None or an integer in 0 .. {vocab_size}"),
    ):
        if not is_valid:
            raise InvalidRequest(f"{name}: expected {expected}, found {getattr(sampling, name)!r}", name)


def _sample_row(row: np.ndarray, state: SamplerState) -> Sampled:
    raw = row[: state.vocab_size]
    largest = check(raw)
    sampling = state.sampling
    logits = state.adjust(raw)
    draws = uniform(state.seed, state.choice, state.num_tokens) if sampling.temperature else 0.0
    token = choose(logits, sampling, draws)
    if sampling.logprobs is None:
        return Sampled(token)
    log_total = float(largest) + math.log(float(np.exp(raw - largest).sum(dtype=np.float64)))
    return Sampled(token, float(raw[token]) - log_total, _top(raw, sampling.logprobs, log_total))


def _top(raw: np.ndarray, k: int, log_total: float) -> tuple[tuple[int, float], ...]:
    """The k most likely tokens, most likely first, equal ones by lower id, with their log-probabilities."""
    if k == 0:
        return ()
    ids = largest_k(raw, min(k, len(raw)))
    ids = ids[np.argsort(-raw[ids], kind="stable")]
    return tuple((token, float(raw[token]) - log_total) for token in ids.tolist())


def _splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)
