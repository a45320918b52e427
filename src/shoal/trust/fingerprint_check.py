"""The fingerprint tier: the answer is run again here in one prefill and compared, position by position, with what its
receipt commits to. About a tenth of the answer's own cost for short prompts.

What this does not protect against: a cheat closer to the named model than honest arithmetics are to each other (the
table of docs/checks.md says which were seen how often), and an answerer that runs the true model whenever it expects
to be checked: so it must not know which answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.core.errors import InvalidRequest
from shoal.core.receipt import ModelIdentity
from shoal.trust.calibrate import STATISTICS, Limits, Pair, Tail, arithmetic, statistics
from shoal.trust.check import Subject
from shoal.trust.check_rerun import Question, Rerunner, differences, question
from shoal.trust.verdict import Cost, Finding, Verdict

FALSE_ALARMS = 0.001
"""Of honest answers, the share that fails; ten times as many are unsure."""
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
    """A `Checker`: rerunner is a model here, limits knows the lines that were drawn."""

    rerunner: Rerunner
    limits: FindLimits
    false_alarms: float = FALSE_ALARMS

    async def __call__(self, subject: Subject) -> Verdict:
        """InvalidRequest for another model than the one here, or an opening that cannot be run again."""
        self._check_model(subject.receipt.model)
        parts = [await self._output(subject, place) for place in range(len(subject.receipt.outputs))]
        worst = min(parts, key=lambda verdict: ("fail", "unsure", "pass").index(verdict.outcome))
        return replace(worst, cost=Cost(tokens=sum(part.cost.tokens for part in parts)))

    def _check_model(self, claimed: ModelIdentity) -> None:
        here = self.rerunner.identity
        if not claimed.weights or (claimed.weights, claimed.adapter) != (here.weights, here.adapter):
            raise InvalidRequest(
                f"the answer is said to come from {claimed.name or 'an unnamed model'} ({claimed.weights.hex()[:12]}), "
                f"here runs {here.name} ({here.weights.hex()[:12]}): only the same weights can tell"
            )

    async def _output(self, subject: Subject, place: int) -> Verdict:
        asked = question(subject.receipt, subject.opening, place)
        claimed = subject.opening.outputs[place].fingerprints
        if asked.begins != subject.begins(asked.choice):
            reason = f"it answers for tokens from {asked.begins} on, and was asked for those from "
            return Verdict("fingerprint", "fail", f"{reason}{subject.begins(asked.choice)} on")
        if not claimed:
            return Verdict("fingerprint", "unsure", "the receipt has no fingerprints: nothing to compare with")
        if tuple(self.rerunner.prompt(asked.request)) != asked.prompt:
            return Verdict("fingerprint", "fail", "the prompt that was computed is not the one that was asked")
        return replace(await self._compared(asked, claimed, subject.receipt.model), cost=Cost(tokens=asked.num_rerun))

    async def _compared(self, asked: Question, claimed: Sequence[bytes], model: ModelIdentity) -> Verdict:
        rerun = await self.rerunner.rerun(asked)
        try:
            found = statistics(differences(claimed, rerun))
        except ValueError as error:
            return Verdict("fingerprint", "fail", f"the fingerprints are not of this answer: {error}")
        pair = Pair(arithmetic(model), arithmetic(self.rerunner.identity), model.quantization)
        return judge(found, asked.num_tokens, pair, self.limits(pair), self.false_alarms)


def judge(
    found: Mapping[str, float], num_tokens: int, pair: Pair, limits: Limits | None, false_alarms: float = FALSE_ALARMS
) -> Verdict:
    """What these statistics of an answer of so many tokens say."""
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
