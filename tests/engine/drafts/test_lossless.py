"""Answers with drafts equal answers without, whatever is asked and however wrong the drafts are.

The fake runner's logits hash everything attention reads, so a rejected token left anywhere would change what follows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drafts_harness import KnowingDrafter, ask_all, language, tokens_of

from shoal.core.chunk import Chunk
from shoal.core.request import Constraint, Request, Sampling
from shoal.engine.drafts.draft import Drafter
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.drafts.suffix import SuffixDrafter
from shoal.models.native_runner import NativeRunner
from shoal.models.tiny import tiny_checkpoint

PROMPTS = ["once upon a time there was", "x", "one two one two one two one", "once upon a midnight dreary", "abcabcabc"]

CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0},
    "hot": {"temperature": 1.7, "top_p": 0.9, "min_p": 0.01},
    "top_k": {"temperature": 0.8, "top_k": 5},
    "penalties": {"temperature": 0.9, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "greedy penalties": {"temperature": 0.0, "frequency_penalty": 1.5},
    "bias": {"temperature": 1.0, "logit_bias": {65: 6.0, 66: 5.0, 67: -100.0}},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
    "stop": {"temperature": 0.0, "logit_bias": {65: 9.0, 66: 8.5, 67: 9.0}, "stop": ("ABA", "CC")},
    "ends": {"temperature": 1.0, "logit_bias": {258: 4.0}, "ignore_eos": False, "min_tokens": 5},
    "stop token": {"temperature": 1.0, "stop_token_ids": (65,), "logit_bias": {65: 3.0}, "ignore_eos": False},
}


def requests(fields: dict[str, Any], **more: Any) -> list[Request]:
    sampling = Sampling(**{"seed": 7, "max_tokens": 40, "ignore_eos": True, **fields})
    return [Request(f"r{i}", "tiny", prompt, sampling, **more) for i, prompt in enumerate(PROMPTS)]


def told(chunks: list[Chunk]) -> list[Chunk]:
    """Everything but times."""
    return [replace(chunk, usage=None) for chunk in chunks]


def truths(asked: list[Request], answers: list[list[Chunk]]) -> list[list[int]]:
    """Prompt and answer, as the engine's sequences hold them, for each choice."""
    return [
        [*language().prompt(request), *tokens_of(answer, index)]
        for request, answer in zip(asked, answers, strict=True)
        for index in range(request.n)
    ]


def compare(asked: list[Request], lies: float, *, together: bool = False, **limits: int) -> tuple[int, int]:
    """Tokens drafted and accepted, if every chunk is the same."""
    plain, _ = ask_all(asked, None, together=together, **limits)
    drafter = KnowingDrafter(truths(asked, plain), lies)
    drafted, stats = ask_all(asked, drafter, together=together, **limits)
    for request, expected, found in zip(asked, plain, drafted, strict=True):
        for index in range(request.n):
            own = [[chunk for chunk in told(side) if chunk.index == index] for side in (expected, found)]
            assert own[0] == own[1], f"{request.prompt!r}: another answer with drafts"
        assert expected[-1].usage is not None
        assert found[-1].usage is not None
        assert expected[-1].usage.completion_tokens == found[-1].usage.completion_tokens
    assert drafter.is_closed
    assert set(drafter.forgotten.values()) == {1}
    assert len(drafter.forgotten) == sum(request.n for request in asked)
    return stats.draft_tokens_total, stats.draft_accepted_total


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lies", [0.0, 0.3])
def test_any_sampling_gives_the_same_chunks(case: str, lies: float) -> None:
    drafted, accepted = compare(requests(CASES[case]), lies)
    assert accepted > 5, "nothing was accepted: the test shows nothing"
    assert (drafted > accepted) == (lies > 0) or case in ("stop", "ends", "stop token")


def test_several_choices_and_echo() -> None:
    drafted, accepted = compare(requests({"temperature": 1.0}, n=3, echo=True), 0.05)
    assert 30 < accepted < drafted


def test_a_grammar_holds_drafts_too() -> None:
    schema = '{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a","b"]}'
    fields = {"temperature": 1.0, "logit_bias": {34: 4.0}, "ignore_eos": False}
    drafted, accepted = compare(requests(fields, constraint=Constraint("json_schema", schema)), 0.25)
    assert 10 < accepted < drafted


@pytest.mark.parametrize("limits", [{"num_blocks": 24}, {"max_batch_tokens": 7, "max_running": 3, "max_outputs": 5}])
def test_tight_pools_and_batches(limits: dict[str, int]) -> None:
    """Preempted with a draft, planned without one, or with a part of it: the answer is the same."""
    _, accepted = compare(requests({"temperature": 0.0}), 0.05, together=True, **limits)
    assert accepted > 0


def test_drafts_that_are_all_wrong_end_by_themselves() -> None:
    asked = requests({"temperature": 0.0, "max_tokens": 200})[:1]
    drafted, accepted = compare(asked, 1.0)
    assert accepted < 5
    assert drafted < 60, "after some dozens of wrong tokens it should have given up"


@pytest.mark.parametrize("fields", [CASES["greedy"], CASES["penalties"]], ids=["greedy", "penalties"])
def test_the_kernels_give_the_same_bits(fields: dict[str, Any]) -> None:
    """A real network: rows of one step, whatever their number, equal rows computed one at a time."""
    asked = requests({**fields, "logprobs": 2, "max_tokens": 60})
    plain, _ = ask_all(asked, None, native_runner())
    drafted, stats = ask_all(asked, KnowingDrafter(truths(asked, plain), 0.1), native_runner())
    assert [told(answer) for answer in plain] == [told(answer) for answer in drafted]
    assert stats.draft_accepted_total > 100


@pytest.mark.parametrize("drafter", [LookupDrafter, SuffixDrafter])
def test_real_drafters_find_something_in_a_loop(drafter: type[LookupDrafter | SuffixDrafter]) -> None:
    asked = requests({"temperature": 0.0, "max_tokens": 120})
    guesses: Drafter = drafter()
    plain, _ = ask_all(asked, None, native_runner())
    drafted, stats = ask_all(asked, guesses, native_runner())
    assert [told(answer) for answer in plain] == [told(answer) for answer in drafted]
    assert stats.draft_accepted_total > 100
    assert stats.steps_total < sum(len(tokens_of(answer)) for answer in plain) - 50


def native_runner() -> NativeRunner:
    return NativeRunner(tiny_checkpoint("llama"), num_blocks=128, block_size=16, threads=1)
