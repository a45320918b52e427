"""What a draft is worth: acceptance rate, block efficiency, MBSU (2411.11055 section 4) and measured wall-clock.

    acceptance rate   accepted / drafted
    block efficiency  tokens per target pass: 1 + length * acceptance rate
    MBSU              block efficiency / (length * c + 1), c = parameters of the draft / of the target

MBSU holds where memory is the limit and a pass over `length + 1` rows costs as much as over one. On a CPU it does not,
so costs are measured too: a draft step and a verification, both in target steps; and wall-clock, turn by turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from shoal.models.checkpoint import Checkpoint
from shoal.models.draft_training.trial import Rules, Runs, Tally, answer, speculate, total

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "chat": (
        "What is the capital of France, and what is it known for?",
        "Give me three tips for learning a new language.",
        "Why is the sky blue?",
        "Write a short story about a lighthouse keeper.",
    ),
    "text": (
        "Summarize: The tide is the rise and fall of sea levels caused by the combined effects of the gravitational "
        "forces exerted by the Moon and the Sun, and by the rotation of the Earth. Tide tables can be used for any "
        "given place to find the predicted times and the height of the tide.",
        "Rewrite this more formally: hey, we can't make it on friday, the car broke down and nobody's around to fix "
        "it. can we move it to next week? sorry about that!",
        "List the main points: Bread is made from flour, water, salt and yeast. The dough is kneaded, left to rise, "
        "shaped and baked. A longer rise at a lower temperature gives more flavour.",
    ),
    "code": (
        "Write a Python function that returns the n-th Fibonacci number.",
        "Write a Python class for a stack with push, pop and peek methods.",
        "Write a Python function that reads a CSV file and prints the sum of its second column.",
    ),
}
"""Asked in no training here, and small enough to be asked by every report."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runners with room for a question and its answer, and the number of parameters behind each."""

    target: Runs
    draft: Runs
    target_parameters: int
    draft_parameters: int


@dataclass(frozen=True, slots=True)
class Worth:
    """One line of the report; see above.

    cost_ratio     a draft step's time; verify_ratio  a verification's; both in steps of the target alone.
    wall_clock     tokens/s with the draft over tokens/s without, the median prompt's.
    is_identical   greedy only: every answer was that of the target alone. None where answers are sampled.
    """

    kind: str
    temperature: float
    length: int
    tokens: int
    acceptance_rate: float
    block_efficiency: float
    mbsu: float
    cost_ratio: float
    verify_ratio: float
    tokens_per_s: float
    plain_tokens_per_s: float
    wall_clock: float
    is_identical: bool | None


def parameters(checkpoint: Checkpoint) -> int:
    """Of all weights; a tied head counts once."""
    count = 0
    for tensor in checkpoint.weights.values():
        size = 1
        for dimension in tensor.shape:
            size *= dimension
        count += size
    return count


def measure(pair: Pair, prompts: Mapping[str, Sequence[Sequence[int]]], rules: Rules,
            report: Callable[[], None] = lambda: None) -> list[Worth]:  # fmt: skip
    """One line for each kind of prompt, and one ("all") for all of them; plain and speculated answers by turns."""
    answer(pair.target, next(iter(prompts.values()))[0], rules)  # pages are touched
    every: list[_Turn] = []
    lines: list[Worth] = []
    for kind, group in prompts.items():
        turns: list[_Turn] = []
        for prompt in group:
            turns.append((answer(pair.target, prompt, rules), speculate(pair.target, pair.draft, prompt, rules)))
            report()
        every += turns
        lines.append(_line(kind, pair, rules, turns))
    return [*lines, _line("all", pair, rules, every)]


_Turn = tuple[Tally, Tally]
"""One prompt answered by the target alone and with the draft, one right after the other."""


def _line(kind: str, pair: Pair, rules: Rules, turns: Sequence[_Turn]) -> Worth:
    """Counts are summed. Ratios of times are medians over prompts: a machine that stalls spoils one, not all."""
    plain, fast = total([turn[0] for turn in turns]), total([turn[1] for turn in turns])
    rate = fast.accepted / fast.drafted
    efficiency = 1 + rules.length * rate
    return Worth(
        kind=kind,
        temperature=rules.temperature,
        length=rules.length,
        tokens=fast.tokens,
        acceptance_rate=rate,
        block_efficiency=efficiency,
        mbsu=efficiency / (rules.length * pair.draft_parameters / pair.target_parameters + 1),
        cost_ratio=median(with_it.draft_s / with_it.drafted / _step_s(alone) for alone, with_it in turns),
        verify_ratio=median(with_it.target_s / with_it.rounds / _step_s(alone) for alone, with_it in turns),
        tokens_per_s=fast.tokens / fast.total_s,
        plain_tokens_per_s=plain.tokens / plain.total_s,
        wall_clock=median(_speed(with_it) / _speed(alone) for alone, with_it in turns),
        is_identical=None if rules.temperature else plain.outputs == fast.outputs,
    )


def _step_s(alone: Tally) -> float:
    return alone.target_s / alone.rounds


def _speed(tally: Tally) -> float:
    return tally.tokens / tally.total_s
