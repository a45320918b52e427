"""A second runner drafts: its cache follows the target's tokens, and nothing of it stays when sequences end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drafts_harness import TIMES, ask_all, tokens_of

from shoal.core.clock import VirtualClock
from shoal.core.errors import BadConfig
from shoal.core.request import Request, Sampling
from shoal.engine.drafts.draft import NOTHING, Want
from shoal.engine.drafts.hybrid import HybridDrafter
from shoal.engine.drafts.model import MAX_TOKENS, ModelDrafter, check_same_vocabulary
from shoal.engine.drafts.suffix import SuffixDrafter
from shoal.engine.fakes import FakeRunner
from shoal.engine.sequence import Sequence, int_array
from shoal.models.native_runner import NativeRunner
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

PROMPTS = ["once upon a time", "x", "abcabcabcabc", "to be or not to be"]


def native(num_blocks: int = 64) -> NativeRunner:
    return NativeRunner(tiny_checkpoint("llama"), num_blocks=num_blocks, block_size=16, threads=1)


def drafting(runner: NativeRunner | FakeRunner, context: int = 1024) -> ModelDrafter:
    """A random model is sure of nothing, so no guess is too unlikely here."""
    return ModelDrafter("twin", runner, VirtualClock(), context, max_running=4, least=0.0)


def requests(**fields: float) -> list[Request]:
    sampling = replace(Sampling(seed=3, max_tokens=50, ignore_eos=True), **fields)
    return [Request(f"r{i}", "tiny", prompt, sampling) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_and_faster(together: bool, temperature: float) -> None:
    """The draft model is the target itself here, so greedy guesses are as good as they get."""
    asked = requests(temperature=temperature)[: 2 if together else 4]  # more would fill the batch: no drafts
    plain, before = ask_all(asked, None, native(), together=together)
    drafter = drafting(native())
    drafter._record.accepted = 4.0  # as a good one has learned of itself
    drafted, stats = ask_all(asked, drafter, native(), together=together)
    assert [tokens_of(answer) for answer in plain] == [tokens_of(answer) for answer in drafted]
    assert stats.draft_checks_total > 0
    if temperature == 0 and not together:
        assert stats.draft_accepted_total > 50
        assert stats.steps_total < before.steps_total
    assert drafter._twins == {}
    drafter._scheduler.check_integrity()
    assert drafter._scheduler.tables.pool.num_used == 0


def test_its_guesses_are_what_it_would_say_after_wrong_ones_too() -> None:
    """Whatever the target made of the last guess, the next equals that of a drafter that sees the tokens anew."""
    drafter, seq = drafting(native()), Sequence(int_array(range(60, 80)), 500)
    for accepted in (8, 0, 3, 1, 8, 2):
        (draft,) = drafter.propose([Want(seq, 8)], TIMES)
        (fresh,) = drafting(native()).propose([Want(Sequence(int_array(seq.tokens), 500), 8)], TIMES)
        assert draft.tokens == fresh.tokens
        kept = draft.tokens[:accepted]
        drafter.learn(seq, len(kept))
        seq.tokens.extend([*kept, (draft.tokens or (65,))[0] ^ 1])


def test_it_gives_up_where_it_does_not_pay_and_tries_again() -> None:
    drafter = drafting(native())
    seq = Sequence(int_array(range(60, 80)), 10_000)
    asked = 0
    for _ in range(400):
        (draft,) = drafter.propose([Want(seq, 4)], TIMES)
        asked += draft is not NOTHING
        drafter._record.step_s = 0.5  # half a step of the target for each token it guesses
        drafter.learn(seq, 0)
        seq.tokens.append(65)
    assert 2 < asked < 60


def test_sequences_beyond_its_context_get_nothing() -> None:
    drafter = drafting(native(), context=30)
    seq = Sequence(int_array(range(60, 85)), 500)
    assert drafter.propose([Want(seq, MAX_TOKENS)], TIMES) == [NOTHING]


def test_a_hybrid_takes_the_model_where_the_trees_know_little() -> None:
    asked = requests(temperature=0.0)
    plain, _ = ask_all(asked, None, native())
    drafter = HybridDrafter(SuffixDrafter(), drafting(native()))
    drafted, stats = ask_all(asked, drafter, native())
    assert [tokens_of(answer) for answer in plain] == [tokens_of(answer) for answer in drafted]
    assert stats.drafter == "hybrid:twin"
    assert stats.draft_accepted_total > 50
    assert drafter._suffix.past.num_sequences == len(PROMPTS)


def test_another_vocabulary_is_refused() -> None:
    tokenizer = load_tokenizer(tiny_checkpoint("llama").tokenizer)
    check_same_vocabulary(tokenizer, load_tokenizer(tiny_checkpoint("qwen2").tokenizer))

    class Shifted:
        vocab_size = tokenizer.vocab_size

        def token_bytes(self, token: int) -> bytes:
            return tokenizer.token_bytes((token + 1) % 259)

    with pytest.raises(BadConfig, match="259 tokens that differ"):
        check_same_vocabulary(tokenizer, Shifted())  # type: ignore[arg-type]

    class Short:
        vocab_size = 100

    with pytest.raises(BadConfig, match="found 100"):
        check_same_vocabulary(tokenizer, Short())  # type: ignore[arg-type]
