"""Drafts' data: texts, what the target is asked, what it said, and windows of both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import BadConfig
from shoal.core.request import Message, Request
from shoal.models.draft_training.data import Data, draw, output_corpus, text_corpus
from shoal.models.draft_training.outputs import TEMPERATURES, Gathering, Output, Target, gather, read_outputs
from shoal.models.draft_training.plan import DraftShape, Plan
from shoal.models.draft_training.prompts import Prompts
from shoal.models.draft_training.text import PIECE_CHARS, encode_files, text_files
from shoal.models.template import ChatTemplate
from shoal.models.tiny import CHAT_TEMPLATE, tiny_checkpoint
from shoal.models.tokenizer import Tokenizer, load_tokenizer

PLAN = Plan(DraftShape(32, 1, 32), 3, 5, batch=4, length=8)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(tiny_checkpoint().tokenizer)


def prompts(tokenizer: Tokenizer, has_template: bool = True) -> Prompts:
    text = np.array(tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 20), np.int32)
    return Prompts(tokenizer, ChatTemplate(CHAT_TEMPLATE, tokenizer) if has_template else None, text)


class Parrot:
    """Answers with its seed, its temperature and the length of the prompt, after as many turns of the loop as asked."""

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay
        self.seen: list[Request] = []

    async def __call__(self, request: Request) -> AsyncIterator[Chunk]:
        self.seen.append(request)
        for _ in range(self.delay * len(self.seen) % 7):
            await asyncio.sleep(0)
        seed = request.sampling.seed or 0
        yield Chunk(token_ids=(65 + seed % 26, 66))
        yield Chunk(token_ids=(len(request.prompt) % 200,), finish_reason="stop", usage=Usage())


def run(target: Parrot, path: Path, tokenizer: Tokenizer, count: int = 12, has_template: bool = True) -> list[Output]:
    asked = gather(
        Target(target, "tiny"), prompts(tokenizer, has_template), Gathering(count, 16), path, lambda *_: None
    )
    return asyncio.run(asked)


# ---- text ---------------------------------------------------------------------------------------------------


def test_documents_end_with_the_end_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, text in (("a", "hi"), ("b", "né\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = encode_files(text_files([tmp_path]), tokenizer)
    assert found.tolist() == [*b"hi", 258, *"né\n".encode(), 258]


def test_long_documents_are_encoded_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = "".join(f"line {number}\n" for number in range(PIECE_CHARS // 5))
    (tmp_path / "long").write_text(text)
    assert bytes(encode_files([tmp_path / "long"], tokenizer)[:-1].tolist()).decode() == text


def test_text_that_is_missing_empty_or_not_text_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(BadConfig, match=r"--text.*nothing at"):
        text_files([tmp_path / "none"])
    with pytest.raises(BadConfig, match=r"--text.*at least one file"):
        text_files([tmp_path])
    (tmp_path / "empty").touch()
    with pytest.raises(BadConfig, match="only empty files"):
        encode_files([tmp_path / "empty"], tokenizer)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="UTF-8"):
        encode_files([tmp_path / "bytes"], tokenizer)


# ---- prompts ------------------------------------------------------------------------------------------------


def test_the_opening_is_what_comes_before_a_user_s_words(tokenizer: Tokenizer) -> None:
    asked = prompts(tokenizer)
    assert asked.opening == [257, *b"user\n"]
    template = ChatTemplate(CHAT_TEMPLATE, tokenizer)
    assert asked.around([32, *b"Why?", 258]) == template.encode((Message("user", "Why?"),))


def test_half_of_the_prompts_are_made_up_by_the_target_at_every_temperature(tokenizer: Tokenizer) -> None:
    asked = prompts(tokenizer)
    made_up = {index % len(TEMPERATURES) for index in range(32) if asked.fixed(index) is None}
    given = {index % len(TEMPERATURES) for index in range(32) if asked.fixed(index) is not None}
    assert made_up == given == set(range(len(TEMPERATURES)))
    assert asked.fixed(5) == prompts(tokenizer).fixed(5)
    assert asked.fixed(5) != asked.fixed(13)


def test_without_a_template_prompts_are_pieces_of_the_text(tokenizer: Tokenizer) -> None:
    asked = prompts(tokenizer, has_template=False)
    found = [asked.fixed(index) for index in range(8)]
    assert all(item is not None and tokenizer.decode(item) in "The quick brown fox jumps over the lazy dog. " * 20
               for item in found)  # fmt: skip
    assert asked.opening == []


# ---- outputs ------------------------------------------------------------------------------------------------


def test_an_output_depends_on_its_number_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    quick, slow = run(Parrot(), tmp_path / "quick", tokenizer), run(Parrot(3), tmp_path / "slow", tokenizer)
    assert quick == slow
    assert [output.index for output in quick] == list(range(12))
    assert [output.temperature for output in quick[:4]] == list(TEMPERATURES)


def test_gathering_goes_on_where_it_was_killed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    whole = run(Parrot(), tmp_path / "whole", tokenizer)
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "half").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    target = Parrot()
    assert run(target, tmp_path / "half", tokenizer) == whole
    kept = {json.loads(line)["index"] for line in lines[:5]}
    assert not kept & {int(request.request_id.split("-")[-1]) for request in target.seen}


def test_enough_outputs_ask_nobody(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run(Parrot(), tmp_path / "file", tokenizer)
    target = Parrot()
    assert len(run(target, tmp_path / "file", tokenizer, count=10)) == 12
    assert target.seen == []


def test_time_that_is_up_stops_the_gathering(tmp_path: Path, tokenizer: Tokenizer) -> None:
    options = Gathering(10_000, 16, minutes=0.0)
    asked = gather(Target(Parrot(), "tiny"), prompts(tokenizer), options, tmp_path / "file", lambda *_: None)
    assert len(asyncio.run(asked)) < 10_000


def test_a_foreign_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"index": 0, "temperature": 0, "prompt": [], "tokens": []}\n{"other": 1}\n')
    with pytest.raises(BadConfig, match="line 2"):
        read_outputs(tmp_path / "file")


# ---- windows ------------------------------------------------------------------------------------------------


def test_only_what_the_target_said_counts() -> None:
    corpus = output_corpus([Output(0, 0.0, [1, 2], [3, 4, 5]), Output(1, 0.6, [6], [7])])
    assert corpus.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert corpus.counts.tolist() == [False, False, True, True, True, False, True]


def test_windows_are_shifted_by_one_and_drawn_by_number() -> None:
    corpus = text_corpus(np.arange(100, dtype=np.int32))
    window = draw(corpus, PLAN, 7)
    assert window.inputs.shape == window.targets.shape == window.counts.shape == (4, 8)
    np.testing.assert_array_equal(window.inputs + 1, window.targets)
    np.testing.assert_array_equal(window.inputs, draw(corpus, PLAN, 7).inputs)
    assert (window.inputs != draw(corpus, PLAN, 8).inputs).any()


def test_a_corpus_shorter_than_a_window_is_repeated() -> None:
    window = draw(text_corpus(np.array([1, 2, 3], np.int32)), PLAN, 0)
    assert set(window.inputs.flatten().tolist()) == {1, 2, 3}
    np.testing.assert_array_equal(window.targets, window.inputs % 3 + 1)


def test_text_comes_first_then_outputs() -> None:
    data = Data(text_corpus(np.full(50, 1, np.int32)), text_corpus(np.full(50, 2, np.int32)))
    seen = [int(data.window(PLAN, step).inputs[0, 0]) for step in range(PLAN.steps)]
    assert seen == [1, 1, 1, 2, 2, 2, 2, 2]


def test_frequent_tokens_are_counted_in_both() -> None:
    data = Data(text_corpus(np.array([5] * 15 + [3], np.int32)), text_corpus(np.array([7, 9, 9], np.int32)))
    assert data.frequent(12, 2).tolist() == [5, 9]
    assert data.frequent(12, 3).tolist() == [5, 7, 9]
