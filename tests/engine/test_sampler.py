"""Sampling against a naive float64 reference: the sets that truncation keeps, the distribution of draws, the edges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.request import Sampling
from shoal.engine import truncation
from shoal.engine.sampler import Sampled, SamplerState, check_sampling, sample, sample_best, uniform
from shoal.engine.truncation import choose, draw, kept

VOCAB = 12
EOS = frozenset({3})
PROMPT = (0, 1, 1, 5)
OUTPUT = (5, 7, 7, 7, 9)
LOGITS = np.array([2.0, 1.5, 1.5, 1.0, 0.5, 0.5, 0.0, -0.5, 2.5, 1.75, -1.0, -2.0], np.float32)


class OnlyTokens:
    """A fake matcher: the same tokens are allowed everywhere."""

    def __init__(self, allowed: Sequence[int]) -> None:
        self.allowed = allowed

    def mask(self) -> np.ndarray:
        mask = np.zeros(VOCAB, np.bool_)
        mask[list(self.allowed)] = True
        return mask

    def accept(self, token: int) -> None:
        assert token in self.allowed

    def rollback(self, n: int) -> None:
        pass

    def fork(self) -> OnlyTokens:
        return self


def state(
    sampling: Sampling, *, choice: int = 0, output: Sequence[int] = (), matcher: OnlyTokens | None = None
) -> SamplerState:
    made = SamplerState(sampling, choice=choice, prompt=PROMPT, vocab_size=VOCAB, eos_ids=EOS, matcher=matcher)
    for token in output:
        made.accept(token)
    return made


# ---- the reference: the words of `Sampling`, in float64, one token at a time --------------------------------


def adjusted(logits: np.ndarray, sampling: Sampling, output: Sequence[int]) -> list[float]:
    result = []
    for token, logit in enumerate(logits.astype(np.float64).tolist()):
        logit += sampling.logit_bias.get(token, 0.0)
        if token in PROMPT or token in output:
            logit = logit / sampling.repetition_penalty if logit > 0 else logit * sampling.repetition_penalty
        count = list(output).count(token)
        result.append(logit - sampling.frequency_penalty * count - sampling.presence_penalty * (count > 0))
    return result


def probabilities(logits: Sequence[float], temperature: float) -> np.ndarray:
    scaled = (np.asarray(logits, np.float64) - max(logits)) / temperature
    weights = np.exp(scaled)
    return weights / weights.sum()


def kept_by_reference(logits: Sequence[float], sampling: Sampling) -> tuple[set[int], float]:
    """The tokens kept, and how close (in mass) a cumulative sum came to top_p: too close to call is no test."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.top_k:
        order = order[: sampling.top_k]
    mass = probabilities([logits[token] for token in order], sampling.temperature)
    cumulative = np.cumsum(mass)
    size = len(order) if sampling.top_p == 1 else int(np.argmax(cumulative >= sampling.top_p)) + 1
    floor = max(logits) + sampling.temperature * math.log(sampling.min_p) if sampling.min_p else -math.inf
    return {token for token in order[:size] if logits[token] >= floor}, float(np.abs(cumulative - sampling.top_p).min())


def expected(logits: np.ndarray, sampling: Sampling, output: Sequence[int]) -> np.ndarray:
    values = adjusted(logits, sampling, output)
    tokens, _ = kept_by_reference(values, sampling)
    result = probabilities(values, sampling.temperature)
    result[[token for token in range(len(values)) if token not in tokens]] = 0
    return result / result.sum()


def chi_squared(observed: Counter[int], probability: np.ndarray, draws: int) -> float:
    """The statistic in standard deviations above its mean; inf if something impossible was drawn."""
    possible = np.flatnonzero(probability)
    if set(observed) - set(possible.tolist()):
        return math.inf
    wanted = probability[possible] * draws
    found = np.array([observed[token] for token in possible.tolist()])
    freedom = max(len(possible) - 1, 1)
    return (float(((found - wanted) ** 2 / wanted).sum()) - freedom) / math.sqrt(2 * freedom)


# ---- distributions ------------------------------------------------------------------------------------------

PLAIN = Sampling(temperature=1.0)
CASES = {
    "hot": Sampling(temperature=1.7),
    "cold": Sampling(temperature=0.4),
    "top_k": Sampling(top_k=4),
    "top_p": Sampling(top_p=0.7),
    "min_p": Sampling(min_p=0.3),
    "together": Sampling(temperature=1.3, top_k=9, top_p=0.9, min_p=0.1),
    "repetition": Sampling(repetition_penalty=1.8),
    "frequency": Sampling(frequency_penalty=0.6),
    "presence": Sampling(presence_penalty=1.2),
    "bias": Sampling(logit_bias={2: 1.5, 8: -3.0}),
    "penalties": Sampling(
        temperature=0.8,
        top_p=0.95,
        repetition_penalty=1.3,
        frequency_penalty=0.4,
        presence_penalty=-0.5,
        logit_bias={7: 2.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_reference_distribution(name: str) -> None:
    draws = 4000
    found = Counter(
        sample(LOGITS[None], [state(replace(CASES[name], seed=seed), output=OUTPUT)])[0].token_id
        for seed in range(draws)
    )
    assert chi_squared(found, expected(LOGITS, CASES[name], OUTPUT), draws) < 4
    assert chi_squared(found, expected(LOGITS, PLAIN, OUTPUT), draws) > 10, "the test must be able to tell them apart"


def test_a_row_longer_than_a_block_is_drawn_in_proportion() -> None:
    weights = np.random.default_rng(0).random(5 * truncation.BLOCK + 17).astype(np.float32)
    weights[::3] = 0
    draws = 20_000
    found = Counter(draw(weights, uniform(1, 0, position)) for position in range(draws))
    assert chi_squared(found, weights.astype(np.float64) / weights.sum(), draws) < 4


@pytest.mark.parametrize("u", [0.0, 2.0**-53, 0.5, 1 - 2.0**-53])
def test_draw_never_picks_weight_zero_even_at_the_ends(u: float) -> None:
    weights = np.zeros(1000, np.float32)
    weights[[300, 301, 699]] = (1e-30, 1.0, 1e-30)
    assert weights[draw(weights, u)] > 0
    assert draw(np.ones(3, np.float32), u) == int(3 * u)
    rounds_up = np.array([1.0, 1.5 * 2.0**-24, 0.0], np.float32)  # float32 sums it to more than float64 does
    assert draw(rounds_up, u) < 2


# ---- truncation sets ----------------------------------------------------------------------------------------

ROWS = st.one_of(
    st.lists(st.integers(-6, 6).map(lambda step: step / 2), min_size=1, max_size=40),  # many ties
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(300, 900)).map(
        lambda pair: (np.random.default_rng(pair[0]).standard_normal(pair[1]) * 3).round(1).tolist()
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    row=ROWS,
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 3, 7, 300]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 1e-6, 0.05, 0.5, 1.0]),
    head=st.sampled_from([2, 8, 16_384]),
)
def test_truncation_keeps_exactly_what_the_reference_keeps(
    row: list[float], temperature: float, top_k: int, top_p: float, min_p: float, head: int
) -> None:
    logits = np.array(row, np.float32)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    wanted, closeness = kept_by_reference(logits.astype(np.float64).tolist(), sampling)
    assume(top_p == 1 or closeness > 1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "HEAD", head)
        ids = kept(logits, sampling)
    found = list(range(len(row))) if ids is None else ids.tolist()
    assert found == sorted(wanted)


def test_a_nucleus_found_in_the_head_has_its_part_of_the_whole_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "HEAD", 8)
    ids = kept(np.log(np.array([0.3, 0.25, 0.15] + [0.06] * 5, np.float32)), Sampling(top_p=0.32))
    assert ids is not None
    assert ids.tolist() == [0, 1], "0.3 of the whole is not enough, though it is 0.43 of the head"


def test_min_p_decides_as_float64_does_next_to_its_border() -> None:
    for min_p in np.linspace(0.05, 0.95, 91).tolist():
        border = np.float32(math.log(min_p))
        ids = kept(np.array([0.0, border], np.float32), Sampling(min_p=min_p))
        assert ids is not None
        assert len(ids) == 1 + (float(border) >= math.log(min_p))


def test_equal_logits_are_kept_by_lower_id() -> None:
    flat = np.zeros(8, np.float32)
    for sampling, wanted in (
        (Sampling(top_k=3), [0, 1, 2]),
        (Sampling(top_p=0.5), [0, 1, 2, 3]),
        (Sampling(min_p=1.0), [*range(8)]),
    ):
        ids = kept(flat, sampling)
        assert ids is not None
        assert ids.tolist() == wanted


def test_a_large_flat_row_falls_back_to_the_whole_row() -> None:
    logits = np.zeros(40_000, np.float32)
    ids = kept(logits, Sampling(top_p=0.75))
    assert ids is not None
    assert ids.tolist() == list(range(30_000))


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e300])
def test_extreme_temperatures_have_their_limits(temperature: float) -> None:
    logits = np.array([0.0, 3.0, -np.inf, 2.999], np.float32)
    drawn = {choose(logits, Sampling(temperature=temperature, top_p=0.99), uniform(0, 0, t)) for t in range(60)}
    assert drawn == ({1} if temperature < 1 else {0, 1, 3})


# ---- randomness ---------------------------------------------------------------------------------------------


def test_uniform_is_uniform_along_every_argument() -> None:
    for axis in range(3):
        values = [uniform(*np.roll([index, 11, 5], axis).tolist()) for index in range(8192)]
        bins = Counter(int(value * 64) for value in values)
        assert abs(chi_squared(bins, np.full(64, 1 / 64), 8192)) < 4
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.04
        assert len(set(values)) == 8192


def test_uniform_never_changes() -> None:
    """Stored seeds must keep their answers from one version to the next."""
    assert uniform(0, 0, 0) == 0.13870941014555427
    assert uniform(-1, 2, 1000) == uniform(2**64 - 1, 2, 1000) == 0.09346762151729171


def test_no_seed_draws_one_and_a_fork_keeps_it() -> None:
    first, second = state(Sampling()), state(Sampling())
    assert first.seed != second.seed
    assert first.fork(1).seed == first.seed


# ---- batches, forks, rollbacks ------------------------------------------------------------------------------

MIXED = [
    Sampling(temperature=0),
    Sampling(seed=1),
    Sampling(seed=1, top_p=0.8, logprobs=3),
    Sampling(seed=2, top_k=3, repetition_penalty=1.5),
    Sampling(temperature=0, frequency_penalty=1.0, min_tokens=9),
    Sampling(seed=3, min_p=0.2, logit_bias={1: 4.0}),
]


def test_a_row_is_sampled_alike_alone_and_in_any_batch() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        logits = rng.standard_normal((len(MIXED), VOCAB + 4)).astype(np.float32)
        states = [state(sampling, output=rng.integers(0, VOCAB, 4).tolist()) for sampling in MIXED]
        alone = [sample(np.array(row[None]), [one])[0] for row, one in zip(logits, states, strict=True)]
        order = rng.permutation(len(states)).tolist()
        together = sample(logits[order], [states[which] for which in order])
        assert together == [alone[which] for which in order]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.integers(0, VOCAB - 1), st.integers(-4, -1)), max_size=30), st.sampled_from(MIXED))
def test_rollback_and_fork_leave_the_state_that_replay_makes(steps: list[int], sampling: Sampling) -> None:
    """A step is a token to accept, or minus a number of tokens to undo."""
    walked, history = state(sampling), list[int]()
    for step in steps:
        undone = min(-step, len(history)) if step < 0 else 0
        if step < 0:
            walked.rollback(undone)
            history = history[: len(history) - undone]
        else:
            walked.fork(0).accept(step)  # what a fork does must not be seen
            walked.accept(step)
            history.append(step)
    replayed = state(sampling, output=history)
    replayed.seed = walked.seed
    assert walked.num_tokens == len(history)
    assert np.array_equal(walked.adjust(LOGITS), replayed.adjust(LOGITS))
    assert sample(LOGITS[None], [walked.fork(0)]) == sample(LOGITS[None], [replayed])


def test_rollback_past_the_beginning_is_refused() -> None:
    with pytest.raises(LocalError, match="cannot undo 2 tokens: 1 were accepted"):
        state(Sampling(), output=(1,)).rollback(2)


def test_choices_differ_and_seeds_repeat() -> None:
    sampling = Sampling(seed=7, temperature=3.0)

    def answer(choice: int) -> list[int]:
        walked = state(sampling, choice=choice)
        for _ in range(20):
            walked.accept(sample(LOGITS[None], [walked])[0].token_id)
        return walked._tokens

    assert answer(0) == answer(0)
    assert answer(0) != answer(1)
    flat = np.zeros((1, VOCAB), np.float32)
    forks = [sample(flat, [state(sampling).fork(choice)]) for choice in range(9)]
    assert forks == [sample(flat, [state(sampling, choice=choice)]) for choice in range(9)]
    assert len(set(map(tuple, forks))) > 1


# ---- greedy, masks, log-probabilities -----------------------------------------------------------------------


def test_greedy_takes_the_first_of_equals_and_the_same_as_a_tiny_temperature() -> None:
    logits = np.array([[0.0, 2.0, 2.0, 1.0] + [0.0] * 8], np.float32)
    assert sample(logits, [state(Sampling(temperature=0))]) == [Sampled(1)]
    assert sample(LOGITS[None], [state(Sampling(temperature=1e-9, seed=0))]) == [Sampled(8)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", MIXED)
def test_broken_logits_are_an_error_not_an_answer(bad: float, sampling: Sampling) -> None:
    logits = LOGITS.copy()
    logits[6] = bad
    with pytest.raises(LocalError, match="expected finite logits"):
        sample(logits[None], [state(sampling)])


@pytest.mark.parametrize("sampling", MIXED)
def test_nothing_left_to_choose_is_an_error(sampling: Sampling) -> None:
    with pytest.raises(LocalError, match="no token may follow"):
        sample(LOGITS[None], [state(sampling, matcher=OnlyTokens([]))])


def test_padding_is_never_chosen_and_the_caller_keeps_its_logits() -> None:
    logits = np.concatenate([LOGITS, np.full(8, 50, np.float32)])[None].repeat(len(MIXED), 0)
    logits.setflags(write=False)
    before = logits.copy()
    for found in sample(logits, [state(sampling) for sampling in MIXED]):
        assert found.token_id < VOCAB
        assert all(token < VOCAB for token, _ in found.top)
    assert np.array_equal(logits, before)


def test_end_tokens_wait_for_min_tokens() -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 3], logits[0, 6], logits[0, 2] = 9, 8, 7
    sampling = Sampling(temperature=0, min_tokens=2, stop_token_ids=(6,))
    assert sample(logits, [state(sampling)])[0].token_id == 2
    assert sample(logits, [state(sampling, output=(2, 2))])[0].token_id == 3
    assert sample(logits, [state(replace(sampling, ignore_eos=True))])[0].token_id == 3, "ignored, so not an end token"


def test_a_grammar_holds_and_overrules_min_tokens_when_it_can_only_end() -> None:
    sampling = Sampling(temperature=0, min_tokens=5)
    assert sample(LOGITS[None], [state(sampling, matcher=OnlyTokens([3, 11]))])[0].token_id == 11
    assert sample(LOGITS[None], [state(sampling, matcher=OnlyTokens([3]))])[0].token_id == 3
    drawn = {
        sample(LOGITS[None], [state(Sampling(seed=seed), matcher=OnlyTokens([4, 11]))])[0].token_id
        for seed in range(99)
    }
    assert drawn == {4, 11}


def test_logprobs_are_of_the_raw_logits_whatever_else_applies() -> None:
    sampling = Sampling(
        temperature=0.3,
        top_k=1,
        logprobs=4,
        seed=0,
        logit_bias={11: 50.0},
        repetition_penalty=2.0,
        presence_penalty=1.0,
    )
    reference = np.log(probabilities(LOGITS.tolist(), 1.0))
    (found,) = sample(LOGITS[None], [state(sampling, output=OUTPUT)])
    assert found.token_id == 11
    assert found.logprob == pytest.approx(reference[11], abs=1e-5)
    assert [token for token, _ in found.top] == [8, 0, 9, 1]
    assert [value for _, value in found.top] == pytest.approx(reference[[8, 0, 9, 1]], abs=1e-5)
    assert sample(LOGITS[None], [state(replace(sampling, logprobs=0), output=OUTPUT)])[0].top == ()
    assert len(sample(LOGITS[None], [state(replace(sampling, logprobs=VOCAB))])[0].top) == VOCAB


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(temperature=math.inf), "temperature"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(min_p=-0.1), "min_p"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(repetition_penalty=1e-300), "repetition_penalty"),  # once an infinite logit, and a 500
        (Sampling(frequency_penalty=math.inf), "frequency_penalty"),
        (Sampling(presence_penalty=math.nan), "presence_penalty"),
        (Sampling(logit_bias={VOCAB: 1.0}), "logit_bias"),
        (Sampling(logit_bias={1: math.nan}), "logit_bias"),
        (Sampling(stop_token_ids=(-1,)), "stop_token_ids"),
        (Sampling(min_tokens=-1), "min_tokens"),
        (Sampling(logprobs=-1), "logprobs"),
    ],
)
def test_values_out_of_range_are_refused_by_name(sampling: Sampling, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(sampling, VOCAB)
    assert caught.value.param == param
    with pytest.raises(InvalidRequest):
        state(sampling)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=0, min_tokens=2, stop_token_ids=(1,)),
        Sampling(temperature=0, logprobs=2),
        Sampling(temperature=0, logit_bias={3: 5.0}),
        Sampling(temperature=0, repetition_penalty=1.5),
        Sampling(temperature=0.7, seed=3),
    ],
)
def test_a_known_best_token_changes_no_answer_and_decides_only_where_nothing_else_does(sampling: Sampling) -> None:
    logits = np.random.default_rng(5).integers(-2, 3, (12, VOCAB + 2)).astype(np.float32)
    plain, quick = state(sampling), state(sampling)
    decided = []
    for row in logits:
        (wanted,) = sample(row[None], (plain,))
        found = sample_best(int(row.argmax()), quick)
        assert found in (None, wanted)
        decided.append(found is not None)
        for each in (plain, quick):
            each.accept(wanted.token_id)
    is_plain = sampling == Sampling(
        temperature=0, min_tokens=sampling.min_tokens, stop_token_ids=sampling.stop_token_ids
    )
    expected = [row.argmax() < VOCAB and n >= sampling.min_tokens for n, row in enumerate(logits)]
    assert decided == [is_plain and each for each in expected]
    assert is_plain == any(decided)
