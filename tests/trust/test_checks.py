"""Answers run again: honest ones agree, every cheat of the list differs, and limits keep their stated rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest
from checks_harness import Machine, asked, machine, with_opening

from shoal.core.clock import VirtualClock
from shoal.core.errors import InvalidRequest, Unsupported
from shoal.core.receipt import Part, Signed
from shoal.core.request import Approximation, Constraint, Resume, Sampling
from shoal.engine.sampler import SamplerState, sample
from shoal.trust.calibrate import LENGTHS, STATISTICS, Limits, Pair, Tail, arithmetic, draw_limits, fit, statistics
from shoal.trust.calibrate_run import compare, evidence_of
from shoal.trust.check import Subject, check, decided, settle, subjects
from shoal.trust.check_rerun import Differences, Question, differences, gap, question, sampler_state
from shoal.trust.fingerprint_check import FingerprintCheck, judge
from shoal.trust.receipt import receipt_digest
from shoal.trust.verdict import Verdict

NOISE = 0.01


def on(test: Callable[[Machine, Machine], Awaitable[None]], **other: float) -> None:
    """`test(checker, answerer)`: the answerer is off by NOISE, and by what `other` says."""

    async def main() -> None:
        async with machine(0) as here, machine(1, **{"noise": NOISE, **other}) as there:  # type: ignore[arg-type]
            await test(here, there)

    asyncio.run(asyncio.wait_for(main(), 60))


async def limits_between(here: Machine, there: Machine) -> Limits:
    pair = Pair(arithmetic(there.rerunner.identity), arithmetic(here.rerunner.identity), "F32")
    requests = [asked(1000 + number, 64, float(number % 2)) for number in range(24)]
    found = await evidence_of(there.engine.generate, requests)
    return draw_limits(pair, [await compare(here.rerunner, r, e) for r, e in zip(requests, found, strict=True)], "test")


def test_the_same_arithmetic_gives_the_same_bytes() -> None:
    async def test(here: Machine, there: Machine) -> None:
        for temperature in (0.0, 1.0):
            subject = await here.answer(asked(3, 40, temperature))
            rerun = await here.rerunner.rerun(question(subject.receipt, subject.opening, 0))
            assert rerun.fingerprints == subject.opening.outputs[0].fingerprints
            assert not rerun.gaps.any()

    on(test)


def test_another_arithmetic_passes() -> None:
    async def test(here: Machine, there: Machine) -> None:
        limits = await limits_between(here, there)
        checker = FingerprintCheck(here.find, lambda pair: limits if pair == limits.pair else None)
        for number in range(6):
            subject = await there.answer(asked(number, 40, float(number % 2)))
            verdict = await check(subject, "fingerprint", {"fingerprint": checker}, VirtualClock())
            assert verdict.outcome == "pass", verdict
            assert verdict.cost.tokens == len(subject.opening.prompt) + 39

    on(test)


def test_another_model_another_prompt_and_other_tokens_fail() -> None:
    async def test(here: Machine, there: Machine) -> None:
        limits = await limits_between(here, there)
        checker = FingerprintCheck(here.find, lambda pair: limits)
        honest, other = await there.answer(asked(1)), await there.answer(asked(2))
        async with machine(1, NOISE, model=5) as liar:
            cheats = {"another model": await liar.answer(asked(1))}
            for seed in (11, 12):  # true activations for tokens that another model chose
                lie = await liar.answer(asked(seed, 40, float(seed % 2)))
                rerun = await there.rerunner.rerun(question(lie.receipt, lie.opening, 0))
                output = replace(lie.opening.outputs[0], fingerprints=rerun.fingerprints)
                cheats[f"other tokens {seed}"] = Subject(lie.receipt, replace(lie.opening, outputs=(output,)))
        cheats["the cached answer of another prompt"] = Subject(
            honest.receipt, replace(other.opening, request=honest.opening.request, prompt=honest.opening.prompt)
        )
        tokens = list(honest.opening.outputs[0].tokens)
        tokens[20] = (tokens[20] + 1) % 256
        cheats["one token altered"] = Subject(honest.receipt, with_opening(honest, tokens))
        cheats["a token no sampler chooses"] = Subject(honest.receipt, with_opening(honest, [*tokens[:-1], 300]))
        for name, subject in cheats.items():
            assert (await checker(subject)).outcome == "fail", name

    on(test)


def test_a_prompt_that_was_not_asked_fails_before_anything_is_computed() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await there.answer(asked(1))
        lie = replace(subject.opening, prompt=subject.opening.prompt[:-1])
        before = here.runner.num_rows
        verdict = await FingerprintCheck(here.find, lambda pair: None)(Subject(subject.receipt, lie))
        assert verdict.outcome == "fail"
        assert "prompt" in verdict.reason
        assert here.runner.num_rows == before

    on(test)


def test_an_answerer_cannot_begin_late_to_hide_what_it_copied() -> None:
    """It says that somebody else made its first 32 tokens; nobody had asked it to go on with anything."""

    async def test(here: Machine, there: Machine) -> None:
        first = await there.answer(asked(1, 64))
        made = first.opening.outputs[0].tokens[:32]
        late = await there.answer(replace(asked(1, 64), resume=Resume(tokens=made)))
        assert late.receipt.outputs[0].begins == 32
        checker = FingerprintCheck(here.find, lambda pair: None)
        assert "asked for those from 0" in (await checker(late)).reason
        told = replace(late, begun={0: 32})
        assert "asked for" not in (await checker(told)).reason

    on(test)


def test_an_answer_that_went_on_elsewhere_is_checked_part_by_part() -> None:
    async def test(here: Machine, there: Machine) -> None:
        first = await there.answer(asked(1, 64))
        made = first.opening.outputs[0].tokens[:32]
        late = await there.answer(replace(asked(1, 64), resume=Resume(tokens=made)))
        parts = (Part(0, "local", 0, 32), Part(0, "b", 32, 32, receipt_digest(late.receipt)))
        whole = replace(first.receipt, parts=parts)
        found = subjects(Signed(whole, replace(first.opening, nested=(Signed(late.receipt, late.opening),))))
        assert [subject.begins(0) for subject in found] == [0, 32]
        with pytest.raises(InvalidRequest, match="opening"):
            subjects(Signed(whole))

    on(test)


def test_several_choices_are_each_checked() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await here.answer(asked(4, 16, n=3))
        limits = Limits(Pair("", "", ""), {8: {name: Tail(0.0, 0.0, 40, 0.0) for name in STATISTICS}}, "")
        checker = FingerprintCheck(here.find, lambda pair: limits)
        verdict = await checker(subject)
        assert verdict.outcome == "pass"
        assert "to the bit" in verdict.reason
        last = subject.opening.outputs[2]
        swapped = (*subject.opening.outputs[:2], replace(last, tokens=subject.opening.outputs[1].tokens))
        assert (await checker(replace(subject, opening=replace(subject.opening, outputs=swapped)))).outcome == "fail"

    on(test)


def test_what_cannot_be_run_again_is_refused_in_words() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await there.answer(asked(1))
        receipt, opening = subject.receipt, subject.opening
        checker = FingerprintCheck(here.find, lambda pair: None)
        refused = {
            "approximated": Subject(replace(receipt, approximation=Approximation(core_neurons=0.5)), opening),
            "hides": Subject(receipt, replace(opening, request=None)),
            "same weights": Subject(replace(receipt, model=replace(receipt.model, weights=b"x")), opening),
            "tokens, found": Subject(receipt, with_opening(subject, opening.outputs[0].tokens[:-1])),
        }
        for words, bad in refused.items():
            with pytest.raises(InvalidRequest, match=words):
                await checker(bad)
        bare = replace(opening, outputs=(replace(opening.outputs[0], fingerprints=()),))
        assert (await checker(Subject(receipt, bare))).outcome == "unsure"
        short = replace(
            opening, outputs=(replace(opening.outputs[0], fingerprints=opening.outputs[0].fingerprints[:1]),)
        )
        assert (await checker(Subject(receipt, short))).outcome == "fail"

    on(test)


# ---- the interface ---------------------------------------------------------------------------------------------


def test_a_receipt_that_does_not_hold_fails_every_tier_and_a_missing_tier_is_named() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await there.answer(asked(1))

        async def never(subject: Subject) -> Verdict:
            raise AssertionError("not reached")

        forged = replace(subject, receipt=replace(subject.receipt, created=2))
        verdict = await check(forged, "fingerprint", {"fingerprint": never}, VirtualClock())
        assert verdict.outcome == "fail"
        assert "signature" in verdict.reason
        with pytest.raises(Unsupported, match="cannot check by proof; it can by: fingerprint"):
            await check(subject, "proof", {"fingerprint": never}, VirtualClock())

    on(test)


def test_disputes_escalate_until_something_settles_them() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await there.answer(asked(1))

        def says(tier: str, outcome: str) -> object:
            async def checker(subject: Subject) -> Verdict:
                return Verdict(tier, outcome, "")  # type: ignore[arg-type]

            return checker

        async def refuses(subject: Subject) -> Verdict:
            raise InvalidRequest("not this one")

        checkers = {"fingerprint": says("fingerprint", "fail"), "distribution": says("distribution", "pass")}
        verdicts = await settle(subject, "fingerprint", checkers, VirtualClock())  # type: ignore[arg-type]
        assert [verdict.outcome for verdict in verdicts] == ["fail", "pass"]
        assert decided(verdicts).outcome == "pass"
        checkers = {"fingerprint": says("fingerprint", "fail"), "freivalds": refuses, "proof": says("proof", "unsure")}
        verdicts = await settle(subject, "fingerprint", checkers, VirtualClock())  # type: ignore[arg-type]
        assert [verdict.outcome for verdict in verdicts] == ["fail", "unsure", "unsure"]
        assert decided(verdicts).tier == "fingerprint"
        with pytest.raises(InvalidRequest, match="not this one"):
            await settle(subject, "freivalds", {"freivalds": refuses}, VirtualClock())

    on(test)


# ---- gaps ------------------------------------------------------------------------------------------------------


def state_of(sampling: Sampling, vocab_size: int = 50) -> object:
    request = replace(asked(0), sampling=sampling)
    return sampler_state(vocab_size, frozenset({7}), Question(request, (1,), (2,), 0, 0))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("rule", [{}, {"top_p": 0.5}, {"top_k": 5}, {"min_p": 0.2}, {"repetition_penalty": 2.0}])
def test_a_gap_is_zero_exactly_where_the_sampler_chooses_the_token(temperature: float, rule: dict[str, float]) -> None:
    source = np.random.default_rng(1)
    for seed in range(20):
        state = state_of(Sampling(temperature=temperature, seed=seed, **rule))  # type: ignore[arg-type]
        row = (source.standard_normal(50) * 3).astype(np.float32)
        chosen = sample(row[None], [state])[0].token_id  # type: ignore[list-item]
        gaps = [gap(row, state, token) for token in range(50)]  # type: ignore[arg-type]
        assert gaps[chosen] == pytest.approx(0.0, abs=1e-6)
        assert sum(item < 1e-6 for item in gaps) <= 3
        assert all(0.0 <= item <= 1.0 for item in gaps)


def test_tokens_that_cannot_be_chosen_have_the_largest_gap() -> None:
    row = np.zeros(50, np.float32)
    assert gap(row, state_of(Sampling(temperature=1.0, seed=1, min_tokens=3)), 7) == 1.0  # type: ignore[arg-type]
    assert gap(row, state_of(Sampling(temperature=0.0)), 60) == 1.0  # type: ignore[arg-type]
    assert gap(np.full(50, np.nan, np.float32), state_of(Sampling(temperature=0.0)), 1) == 1.0  # type: ignore[arg-type]


def test_noise_moves_gaps_by_no_more_than_it_moves_probability() -> None:
    source = np.random.default_rng(2)
    for seed in range(30):
        state = state_of(Sampling(temperature=1.0, seed=seed))
        row = (source.standard_normal(50) * 3).astype(np.float32)
        near = row + (source.standard_normal(50) * 0.05).astype(np.float32)
        chosen = sample(near[None], [state])[0].token_id  # type: ignore[list-item]
        p, q = (np.exp(item - item.max()) / np.exp(item - item.max()).sum() for item in (row, near))
        assert gap(row, state, chosen) <= np.abs(np.cumsum(p - q)).max() + 1e-6  # type: ignore[arg-type]


# ---- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["exponential", "gamma", "normal"])
def test_limits_keep_the_rate_they_state(draw: str) -> None:
    """On samples that were not used to draw them; 0.5 % is beyond what the 400 samples show directly."""
    source = np.random.default_rng(4)
    samples = {
        "exponential": lambda size: source.exponential(1.0, size),
        "gamma": lambda size: source.gamma(4.0, 1.0, size),
        "normal": lambda size: np.abs(source.standard_normal(size)),
    }[draw]
    rates = [float(np.mean(samples(20_000) > fit(list(samples(400))).limit(0.005))) for _ in range(30)]
    assert np.mean(rates) < 0.0075
    assert fit([0.0] * 40).limit(0.001) == 0.0
    with pytest.raises(ValueError, match="at least 40"):
        fit([1.0] * 39)
    with pytest.raises(ValueError, match="expected a rate"):
        fit([1.0] * 40).limit(0.2)


def test_verdicts_by_length_and_by_how_well_the_pair_is_known() -> None:
    pair = Pair("a", "b", "Q4_1")
    tails = {name: Tail(0.1, 0.01, 400, 0.2) for name in STATISTICS}
    limits = Limits(pair, {8: tails, 32: tails}, "test")
    quiet = dict.fromkeys(STATISTICS, 0.05)
    assert judge(quiet, 40, pair, limits).outcome == "pass"
    assert judge({**quiet, "drift": 0.16}, 40, pair, limits).outcome == "fail"
    assert judge({**quiet, "drift": 0.14}, 40, pair, limits).outcome == "unsure"
    assert judge(quiet, 7, pair, limits).outcome == "unsure"
    assert "too short" in judge(quiet, 7, pair, limits).reason
    assert judge(quiet, 40, pair, None).outcome == "unsure"
    assert "no limits are known" in judge(quiet, 40, pair, None).reason
    assert judge({**quiet, "drift": 0.9}, 40, pair, None).outcome == "fail"
    long = judge({**quiet, "jump": 0.18}, 3200, pair, limits)
    assert long.outcome == "unsure", "a long answer has more chances of one large jump"
    assert judge({**quiet, "jump": 0.18}, 32, pair, limits).outcome == "fail"


def test_limits_are_drawn_for_each_length_that_has_samples() -> None:
    noise = np.random.default_rng(0).random((3, 50, 64))
    limits = draw_limits(Pair("a", "b", "c"), [Differences(*noise[:, row]) for row in range(50)], "test")
    assert set(limits.tails) == {8, 32}
    assert limits.of(7) is None
    assert limits.of(31) is limits.tails[8]
    assert max(LENGTHS) == 128
    assert set(statistics(Differences(*noise[:, 0]))) == set(STATISTICS)


def test_fingerprints_of_another_length_are_no_ones() -> None:
    async def test(here: Machine, there: Machine) -> None:
        subject = await here.answer(asked(3, 40))
        rerun = await here.rerunner.rerun(question(subject.receipt, subject.opening, 0))
        with pytest.raises(ValueError, match="as many tokens"):
            differences((rerun.fingerprints[0], rerun.fingerprints[0]), rerun)

    on(test)


def test_tokens_that_the_grammar_forbids_have_the_largest_gap() -> None:
    async def test(here: Machine, there: Machine) -> None:
        request = replace(asked(5, 12), constraint=Constraint("regex", "[a-f]{12}"))
        subject = await here.answer(request)
        asked_again = question(subject.receipt, subject.opening, 0)

        def state(of: object) -> object:
            return SamplerState(
                asked_again.request.sampling, choice=0, prompt=(), vocab_size=259, eos_ids=frozenset(),
                matcher=here.engine._language.matcher(request),
            )  # fmt: skip

        rerunner = replace(here.rerunner, state=state)  # type: ignore[arg-type]
        assert not (await rerunner.rerun(asked_again)).gaps.any()
        lie = replace(asked_again, tokens=(*asked_again.tokens[:5], ord("z"), *asked_again.tokens[6:]))
        assert (await rerunner.rerun(lie)).gaps[5:].min() == 1.0

    on(test)
