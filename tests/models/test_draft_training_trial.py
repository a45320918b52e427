"""Bare speculation: greedy answers unchanged, sampled ones of the target's distribution, figures that add up."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from shoal.models.batch import Batch
from shoal.models.draft_training.trial import Rules, answer, speculate
from shoal.models.draft_training.worth import Pair, measure, parameters
from shoal.models.tiny import tiny_checkpoint
from shoal.models.torch_runner import TorchRunner

VOCAB = 5
PROMPT = [1, 2, 3]


class HashRunner:
    """Logits are a hash of the whole context, read from the slots as attention would read it."""

    block_size, num_blocks = 4, 16

    def __init__(self, seed: int, sharpness: float = 1.0) -> None:
        self.seed, self.sharpness = seed, sharpness
        self.memory = np.full(self.block_size * self.num_blocks, -1)

    def run(self, batch: Batch) -> np.ndarray:
        self.memory[batch.slots] = batch.tokens
        rows = [self.logits(self.memory[: batch.positions[row] + 1].tolist()) for row in batch.output_rows]
        return np.stack(rows) if rows else np.zeros((0, VOCAB), np.float32)

    def logits(self, context: list[int]) -> np.ndarray:
        digest = hashlib.sha256(repr((self.seed, context)).encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return (self.sharpness * random.standard_normal(VOCAB)).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("draft_seed", [0, 1])
def test_greedy_answers_are_those_of_the_target_alone(length: int, draft_seed: int) -> None:
    rules = Rules(length=length, max_tokens=30)
    expected = answer(HashRunner(0), PROMPT, rules)
    found = speculate(HashRunner(0), HashRunner(draft_seed), PROMPT, rules)
    assert found.outputs == expected.outputs
    assert found.tokens == expected.tokens == 30
    if draft_seed == 0:  # a draft that thinks as its target is always right
        assert found.accepted == found.drafted == length * found.rounds
        assert found.rounds == -(-30 // (length + 1))


def test_real_runners_agree_too() -> None:
    target, draft = (TorchRunner(tiny_checkpoint(seed=seed), block_size=16, num_blocks=8) for seed in (1, 2))
    rules = Rules(max_tokens=40)
    assert speculate(target, draft, PROMPT, rules).outputs == answer(target, PROMPT, rules).outputs


def test_an_end_token_ends_an_answer_in_the_middle_of_a_round() -> None:
    rules = Rules(length=4, max_tokens=30)
    (whole,) = answer(HashRunner(0), PROMPT, rules).outputs
    stop = next(token for token in range(VOCAB) if 2 < whole.index(token) < 29)
    ending = replace(rules, ends=frozenset({stop}))
    for found in (answer(HashRunner(0), PROMPT, ending), speculate(HashRunner(0), HashRunner(0), PROMPT, ending)):
        assert found.outputs == [whole[: whole.index(stop) + 1]]


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_sampled_answers_have_the_target_s_distribution(temperature: float) -> None:
    """Chi-squared over all answers of two tokens, 6,000 draws; the draft believes something else."""
    target, draft, draws = HashRunner(0, 0.4), HashRunner(1, 0.4), 6000
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(draws):
        rules = Rules(length=2, temperature=temperature, max_tokens=2, seed=seed)
        (output,) = speculate(target, draft, PROMPT, rules).outputs
        counts[tuple(output)] += 1
    expected = {
        (first, second): draws * share(target, [], first, temperature) * share(target, [first], second, temperature)
        for first, second in product(range(VOCAB), repeat=2)
    }
    statistic = sum((counts[key] - value) ** 2 / value for key, value in expected.items())
    assert statistic < 51.2  # 24 degrees of freedom, p = 0.001
    wrong = sum((counts[key] - draws / 25) ** 2 / (draws / 25) for key in expected)
    assert min(expected.values()) > 5  # or the statistic would have another distribution
    assert wrong > 500  # the test can tell


def share(runner: HashRunner, after: list[int], token: int, temperature: float) -> float:
    scaled = np.exp(runner.logits([*PROMPT, *after]).astype(np.float64) / temperature)
    return float(scaled[token] / scaled.sum())


def test_the_same_seed_gives_the_same_answer() -> None:
    rules = Rules(temperature=1.0, max_tokens=20, seed=7)
    first, second = (speculate(HashRunner(0), HashRunner(1), PROMPT, rules).outputs for _ in "ab")
    assert first == second
    assert first != speculate(HashRunner(0), HashRunner(1), PROMPT, replace(rules, seed=8)).outputs


def test_figures_add_up() -> None:
    pair = Pair(HashRunner(0), HashRunner(0), target_parameters=1000, draft_parameters=50)
    prompts = {"one": [PROMPT], "two": [[4, 4], [2]]}
    lines = measure(pair, prompts, Rules(length=3, max_tokens=16))
    assert [line.kind for line in lines] == ["one", "two", "all"]
    assert [line.tokens for line in lines] == [16, 32, 48]
    assert lines[0].wall_clock == pytest.approx(lines[0].tokens_per_s / lines[0].plain_tokens_per_s)
    for line in lines:
        assert (line.acceptance_rate, line.block_efficiency, line.is_identical) == (1.0, 4.0, True)
        assert line.mbsu == pytest.approx(4 / (3 * 0.05 + 1))
        assert 0 < line.wall_clock < 100
        assert line.cost_ratio > 0
        assert line.verify_ratio > 0


def test_a_draft_that_knows_nothing_gains_nothing() -> None:
    pair = Pair(HashRunner(0, 20.0), HashRunner(3, 20.0), 1000, 50)
    line = measure(pair, {"one": [PROMPT]}, Rules(length=3, temperature=0.6, max_tokens=40))[-1]
    assert line.acceptance_rate < 0.5
    assert line.block_efficiency == pytest.approx(1 + 3 * line.acceptance_rate)
    assert line.is_identical is None


def test_parameters_are_counted_once() -> None:
    assert parameters(tiny_checkpoint("gemma2")) < parameters(tiny_checkpoint("llama")) + 1000
    expected = 2 * 259 * 64 + 64 + 2 * (2 * 128 * 64 + 2 * 64 * 64 + 3 * 64 * 96 + 2 * 64)
    assert parameters(tiny_checkpoint("llama")) == expected
