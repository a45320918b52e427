"""The fingerprint tier: the answer is run again here in one prefill and compared, position by position, with what its
receipt commits to. About a tenth of the answer's own cost for short prompts.

What this does not protect against: a cheat closer to the named model than honest arithmetics are to each other (the
table of docs/checks.md says which were seen how often), and an answerer that runs the true model whenever it expects
to be checked: so it must not know which answers are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.core.errors import InvalidRequest, PeerFault
from shoal.core.receipt import ModelIdentity
from shoal.trust.calibrate import STATISTICS, Limits, Pair, Tail, arithmetic, statistics
from shoal.trust.check import Subject
from shoal.trust.check_rerun import FindRerunner, Question, Rerun, Rerunner, differences, question
from shoal.trust.verdict import Cost, Finding, Verdict

FALSE_ALARMS = 0.001
"""Of honest answers, the share that fails; ten times as many are unsure."""
EXACT = 1e-5
"""Gap that is left where the logits are the same: sums are taken in another order."""
UNRELATED = 0.5
"""Drift that no honest arithmetic comes near: the largest seen was below a tenth."""

FindLimits = Callable[[Pair], Limits | None]

_MEANING = {
    "drift": "distance between the directions of the model's last states (0 the same, 1 unrelated)",
    "logit": "difference of the chosen tokens' raw logits, nats",
    "gap": "mean distance in probability between the tokens returned and those the sampler chooses",
    "jump": "the largest such distance of a single token",
}


@dataclass(frozen=True, slots=True)
class FingerprintCheck:
    """A `Checker`: find gives the model here that is asked for, limits knows the lines that were drawn."""

    find: FindRerunner
    limits: FindLimits
    false_alarms: float = FALSE_ALARMS

    async def __call__(self, subject: Subject) -> Verdict:
        """InvalidRequest for another model than the one here, or an opening that cannot be run again."""
        asked = [question(subject.receipt, subject.opening, place) for place in range(len(subject.receipt.outputs))]
        rerunner = await self.find(asked[0].request)
        _check_model(subject.receipt.model, rerunner.identity)
        if tuple(await asyncio.to_thread(rerunner.prompt, asked[0].request)) != asked[0].prompt:
            return Verdict("fingerprint", "fail", "the prompt that was computed is not the one that was asked")
        parts = [await self._output(subject, place, one, rerunner) for place, one in enumerate(asked)]
        worst = min(parts, key=lambda verdict: ("fail", "unsure", "pass").index(verdict.outcome))
        return replace(worst, cost=Cost(tokens=sum(part.cost.tokens for part in parts)))

    async def _output(self, subject: Subject, place: int, asked: Question, rerunner: Rerunner) -> Verdict:
        claimed = subject.opening.outputs[place].fingerprints
        if asked.begins != subject.begins(asked.choice):
            reason = f"it answers for tokens from {asked.begins} on, and was asked for those from "
            return Verdict("fingerprint", "fail", f"{reason}{subject.begins(asked.choice)} on")
        if not claimed:
            return Verdict("fingerprint", "unsure", "the receipt has no fingerprints: nothing to compare with")
        try:
            rerun = await rerunner.rerun(asked)
        except PeerFault as error:
            return Verdict("fingerprint", "fail", f"the answer holds tokens that are none of this model's: {error}")
        verdict = self._compared(
            asked,
            claimed,
            rerun,
            Pair(arithmetic(subject.receipt.model), arithmetic(rerunner.identity), subject.receipt.model.quantization),
        )
        return replace(verdict, cost=Cost(tokens=asked.num_rerun))

    def _compared(self, asked: Question, claimed: Sequence[bytes], rerun: Rerun, pair: Pair) -> Verdict:
        try:
            found = statistics(differences(claimed, rerun))
        except ValueError as error:
            return Verdict("fingerprint", "fail", f"the fingerprints are not of this answer: {error}")
        return judge(found, asked.num_tokens, pair, self.limits(pair), self.false_alarms)


def _check_model(claimed: ModelIdentity, here: ModelIdentity) -> None:
    if not claimed.weights or (claimed.weights, claimed.adapter) != (here.weights, here.adapter):
        raise InvalidRequest(
            f"the answer is said to come from {claimed.name or 'an unnamed model'} ({claimed.weights.hex()[:12]}), "
            f"here runs {here.name} ({here.weights.hex()[:12]}): only the same weights can tell"
        )


def judge(
    found: Mapping[str, float], num_tokens: int, pair: Pair, limits: Limits | None, false_alarms: float = FALSE_ALARMS
) -> Verdict:
    """What these statistics of an answer of so many tokens say. Where every bit agrees no limits are needed."""
    if found["drift"] == found["logit"] == 0.0 and found["jump"] <= EXACT:
        findings = tuple(Finding(key, _MEANING[key], found[key]) for key in STATISTICS)
        return Verdict(
            "fingerprint", "pass", "every number agrees to the bit, and every token is the sampler's", findings
        )
    tails = None if limits is None else limits.of(num_tokens)
    if limits is None or tails is None:
        return _uncalibrated(found, num_tokens, pair, limits is None)
    blocks = -(-num_tokens // max(limits.tails))
    shares = {"fail": false_alarms, "unsure": min(0.05, 10 * false_alarms)}
    lines = {name: {key: _line(tails[key], share, key, blocks) for key in STATISTICS} for name, share in shares.items()}
    failed = [key for key in STATISTICS if found[key] > lines["fail"][key]]
    doubted = [key for key in STATISTICS if found[key] > lines["unsure"][key]]
    findings = tuple(Finding(key, _MEANING[key], found[key], lines["fail"][key]) for key in STATISTICS)
    if failed:
        return Verdict(
            "fingerprint", "fail", f"{_named(failed, found, lines['fail'])}; {_rate(false_alarms)}", findings
        )
    if doubted:
        rate = _rate(shares["unsure"])
        return Verdict("fingerprint", "unsure", f"{_named(doubted, found, lines['unsure'])}; {rate}", findings)
    return Verdict("fingerprint", "pass", "the same model, prompt and tokens, as far as this test can tell", findings)


def _line(tail: Tail, share: float, name: str, blocks: int) -> float:
    """The false alarms are shared by the statistics, and those of the largest jump by the parts of a long answer."""
    rate = share / len(STATISTICS) / (blocks if name == "jump" else 1)
    return tail.limit(rate) + 1e-6


def _uncalibrated(found: Mapping[str, float], num_tokens: int, pair: Pair, is_unknown: bool) -> Verdict:
    findings = tuple(Finding(key, _MEANING[key], found[key]) for key in STATISTICS)
    if found["drift"] > UNRELATED:
        reason = f"the states have nothing to do with this model's: drift {found['drift']:.2f}"
        return Verdict("fingerprint", "fail", reason, findings)
    why = f"an answer of {num_tokens} tokens is too short to tell"
    if is_unknown:
        why = (
            f"no limits are known between {pair.answered or 'an unnamed machine'} and {pair.checked or 'this one'} on "
            f"{pair.quantization or 'these'} weights; shoal check --calibrate draws them"
        )
    return Verdict("fingerprint", "unsure", why, findings)


def _named(names: Sequence[str], found: Mapping[str, float], lines: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {found[name]:.3g} is above {lines[name]:.3g}" for name in names)


def _rate(share: float) -> str:
    return f"honest answers are, in {share:.2g} of cases"
