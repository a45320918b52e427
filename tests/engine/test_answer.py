"""Chunks against a naive reading of all tokens at once: stops, ends, lengths, log-probabilities, tool calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.chunk import Chunk, FinishReason
from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.request import Constraint, Message, Request, Sampling, Tool, ToolChoice
from shoal.engine.answer import Answer
from shoal.engine.sampler import Sampled
from shoal.engine.stops import StopScanner
from shoal.models import tokenizer_gguf
from shoal.models.byte_level import CHAR_OF_BYTE
from shoal.models.detokenizer import Detokenizer
from shoal.models.tokenizer import Tokenizer
from shoal.models.tools import ToolFormat

END, MARK = 0, 1


def tiny_tokenizer() -> Tokenizer:
    """Control tokens 0 and 1, then the 256 bytes, then some longer tokens."""
    texts = ["<|im_end|>", "<|mark|>"] + [CHAR_OF_BYTE[byte] for byte in range(256)]
    merges = ["a b", "ab c", "c a", "a a", "< /", "Ã ¶"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts + [merge.replace(" ", "") for merge in merges],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (256 + len(merges)),
        "tokenizer.ggml.eos_token_id": END,
    }
    return Tokenizer(*tokenizer_gguf.read(metadata))


TOKENIZER = tiny_tokenizer()
REQUEST = Request("r", "tiny", (Message("user", "hi"),))


def request(**sampling: Any) -> Request:
    return replace(REQUEST, sampling=Sampling(**sampling))


def run(answer: Answer, tokens: Sequence[int]) -> list[Chunk]:
    """Push until the answer ends; the chunks there were."""
    chunks = []
    for token in tokens:
        chunk = answer.push(Sampled(token, -0.5, ((token, -0.5), (MARK, -1.5))))
        chunks += [] if chunk is None else [chunk]
        if answer.finish_reason is not None:
            break
    return chunks


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def tokens_of(chunks: Sequence[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


# ---- stop strings -------------------------------------------------------------------------------------------

STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


def cut_naively(text: str, stops: Sequence[str], active_from: int) -> tuple[str, bool]:
    """At the first place where a stop string ends, counted only from a position on; of several the longest."""
    for end in range(active_from + 1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, found))], True
    return text, False


def could_become_a_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string and is not all of it."""
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.text("abc", max_size=5), max_size=8), STOPS, st.integers(0, 4))
def test_stop_strings_do_not_depend_on_where_the_text_was_cut(
    pieces: list[str], stops: list[str], inactive: int
) -> None:
    wanted, is_stopped = cut_naively("".join(pieces), stops, len("".join(pieces[:inactive])))
    scanner, shown, read, found = StopScanner(stops), "", "", False
    for number, piece in enumerate(pieces):
        out, found = scanner.push(piece, is_active=number >= inactive)
        shown, read = shown + out, read + piece
        assert wanted.startswith(shown), "nothing may have to be taken back"
        if found:
            break
        assert len(read) - len(shown) == could_become_a_stop(read, stops), "no more held than must be"
    assert found == is_stopped
    assert shown + ("" if found else scanner.flush()) == wanted


def test_a_scanner_is_linear_in_the_text_for_the_worst_stop_string() -> None:
    """A naive search takes 10 ** 10 comparisons here."""
    scanner = StopScanner(["a" * 100_000 + "b"])
    assert scanner.push("a" * 150_000) == ("a" * 50_000, False)
    assert scanner.push("b") == ("", True)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must not be empty") as caught:
        Answer(TOKENIZER, request(stop=("x", "")), 0, max_tokens=5)
    assert caught.value.param == "stop"


# ---- everything at once -------------------------------------------------------------------------------------


def read_naively(tokens: Sequence[int], sampling: Sampling, max_tokens: int) -> tuple[str, int, FinishReason | None]:
    """Text, number of tokens taken, and reason, by decoding every beginning of `tokens` anew. None: not yet ended."""
    before, detokenizer = "", Detokenizer(TOKENIZER)
    for count in range(1, len(tokens) + 1):
        detokenizer = Detokenizer(TOKENIZER)
        text = "".join(detokenizer.push(token) for token in tokens[:count])
        is_end = tokens[count - 1] in sampling.stop_token_ids or (tokens[count - 1] == END and not sampling.ignore_eos)
        is_last = count > sampling.min_tokens and is_end
        if is_last:
            text = before
            detokenizer = Detokenizer(TOKENIZER)
            for token in tokens[: count - 1]:
                detokenizer.push(token)
        ends_here = is_last or count == max_tokens
        text += detokenizer.flush() if ends_here else ""
        if count >= sampling.min_tokens:
            text, is_stopped = cut_naively(text, sampling.stop, len(before))
            if is_stopped:
                return text, count, "stop"
        if ends_here:
            return text, count, "stop" if is_last else "length"
        before = text
    return before + detokenizer.flush(), len(tokens), None


TOKENS = st.lists(
    st.one_of(
        st.sampled_from([*TOKENIZER.encode("abca aabc"), 258, 259, 260, 261]),
        st.sampled_from([2 + byte for byte in "ö日😀".encode()]),  # loose bytes: many are no character
        st.sampled_from([END, MARK, 2 + ord("z")]),
    ),
    max_size=14,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    tokens=TOKENS,
    stop=STOPS.map(tuple),
    stop_ids=st.sampled_from([(), (MARK,), (2 + ord("z"),)]),
    ignore_eos=st.booleans(),
    min_tokens=st.integers(0, 5),
    max_tokens=st.integers(1, 12),
    logprobs=st.sampled_from([None, 0, 2]),
)
def test_an_answer_is_what_reading_all_its_tokens_gives(
    tokens: list[int],
    stop: tuple[str, ...],
    stop_ids: tuple[int, ...],
    ignore_eos: bool,
    min_tokens: int,
    max_tokens: int,
    logprobs: int | None,
) -> None:
    asked = request(stop=stop, stop_token_ids=stop_ids, ignore_eos=ignore_eos, min_tokens=min_tokens, logprobs=logprobs)
    text, taken, reason = read_naively(tokens, asked.sampling, max_tokens)
    answer = Answer(TOKENIZER, asked, 4, max_tokens=max_tokens)
    chunks = run(answer, tokens)
    if reason is None:
        assert text.startswith(text_of(chunks)), "held text may follow"
        chunks.append(answer.end())
        reason = "length"
    assert (text_of(chunks), tokens_of(chunks), answer.num_tokens) == (text, tokens[:taken], taken)
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [reason]
    assert all(chunk.index == 4 and (chunk.text or chunk.finish_reason) for chunk in chunks)
    scored = [entry for chunk in chunks for entry in chunk.logprobs]
    assert [entry.token_id for entry in scored] == ([] if logprobs is None else tokens[:taken])
    assert [len(chunk.logprobs) for chunk in chunks if logprobs is not None] == [
        len(chunk.token_ids) for chunk in chunks if logprobs is not None
    ]
    with pytest.raises(LocalError, match="takes no more tokens"):
        answer.push(Sampled(2))


# ---- the parts, one by one ----------------------------------------------------------------------------------


def test_a_character_split_over_tokens_comes_whole_with_all_its_tokens_and_logprobs() -> None:
    answer = Answer(TOKENIZER, request(logprobs=2), 0, max_tokens=9)
    tokens = [2 + byte for byte in "日".encode()]
    first, second, third = (answer.push(Sampled(token, -1.0, ((MARK, -0.25),))) for token in tokens)
    assert first is second is None
    assert third is not None
    assert (third.text, third.token_ids) == ("日", tuple(tokens))
    assert b"".join(entry.bytes for entry in third.logprobs) == "日".encode()
    assert [(entry.logprob, entry.top[0].token_id, entry.top[0].logprob) for entry in third.logprobs] == [
        (-1.0, MARK, -0.25)
    ] * 3


def test_half_a_character_at_the_end_is_shown_as_a_replacement() -> None:
    answer = Answer(TOKENIZER, request(), 0, max_tokens=9)
    chunks = run(answer, [2 + "日".encode()[0], END])
    assert (text_of(chunks), tokens_of(chunks)) == ("\ufffd", [2 + "日".encode()[0], END])


def test_a_leading_space_is_the_tokenizer_s_in_a_chat_and_the_text_s_in_a_completion() -> None:
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581a", "b"],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    sentencepiece = Tokenizer(*tokenizer_gguf.read(metadata))
    for prompt, wanted in ((REQUEST.prompt, "ab a"), ("once", " ab a"), ((3, 4), " ab a")):
        answer = Answer(sentencepiece, replace(REQUEST, prompt=prompt), 0, max_tokens=3)
        assert text_of(run(answer, (3, 4, 3))) == wanted


def test_text_and_tokens_held_for_a_stop_string_come_when_it_turns_out_to_be_none() -> None:
    answer = Answer(TOKENIZER, request(stop=("abcz",)), 0, max_tokens=9)
    abc, x = 259, TOKENIZER.encode("x")[0]
    assert answer.push(Sampled(abc)) is None
    assert answer.push(Sampled(x)) == Chunk(0, "abcx", (abc, x))
    assert answer.push(Sampled(abc)) is None
    assert answer.push(Sampled(END)) == Chunk(0, "abc", (abc, END), finish_reason="stop")


def test_a_stop_string_inside_a_token_cuts_the_text_but_not_the_token() -> None:
    answer = Answer(TOKENIZER, request(stop=("b",)), 0, max_tokens=9)
    assert answer.push(Sampled(259)) == Chunk(0, "a", (259,), finish_reason="stop")


def test_a_grammar_s_end_is_the_end_whatever_the_sampling_says() -> None:
    for asked, flag in ((replace(request(ignore_eos=True, min_tokens=5), constraint=Constraint("regex", "a")), False),
                        (request(ignore_eos=True, min_tokens=5), True)):  # fmt: skip
        answer = Answer(TOKENIZER, asked, 0, max_tokens=9, is_constrained=flag)
        assert run(answer, [2 + ord("a"), END])[-1].finish_reason == "stop"
    answer = Answer(TOKENIZER, request(ignore_eos=True), 0, max_tokens=9)
    assert run(answer, [2 + ord("a"), END])[-1].finish_reason is None


def test_the_prompt_may_be_repeated_and_may_be_all() -> None:
    answer = Answer(TOKENIZER, request(), 1, max_tokens=2)
    assert answer.prompt_echo("to be") == Chunk(1, "to be")
    assert text_of(run(answer, TOKENIZER.encode(", "))) == ", "
    nothing_more = Answer(TOKENIZER, request(), 1, max_tokens=0)
    assert nothing_more.prompt_echo("to be") == Chunk(1, "to be", finish_reason="length")
    with pytest.raises(LocalError, match="ended already"):
        nothing_more.end()


# ---- tool calls ---------------------------------------------------------------------------------------------

TOOLS = (Tool("add"), Tool("sub"))
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1, "y": "ö"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "sub", "arguments": {}}\n</tool_call>'


def with_tools(parallel: bool = True, max_tokens: int = 999, **sampling: Any) -> Answer:
    asked = replace(request(**sampling), tools=TOOLS, tool_choice=ToolChoice(parallel=parallel))
    format = ToolFormat.detect(None, TOKENIZER)
    return Answer(TOKENIZER, asked, 0, tool_parser=format.parser("r/0", TOOLS), show=format.show, max_tokens=max_tokens)


def calls_of(chunks: Sequence[Chunk]) -> dict[int, tuple[str, Any]]:
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    names = {delta.index: delta.name for delta in deltas if delta.name is not None}
    return {
        index: (name, json.loads("".join(delta.arguments for delta in deltas if delta.index == index)))
        for index, name in names.items()
    }


def test_a_call_ends_with_tool_calls_and_loses_neither_text_nor_tokens() -> None:
    tokens = [*TOKENIZER.encode("Let me see. " + CALL), END]
    chunks = run(with_tools(logprobs=0), tokens)
    assert (text_of(chunks), tokens_of(chunks)) == ("Let me see.", tokens)
    assert calls_of(chunks) == {0: ("add", {"x": 1, "y": "ö"})}
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]
    assert sum(len(chunk.logprobs) for chunk in chunks) == len(tokens)


def test_two_calls_or_only_the_first() -> None:
    tokens = [*TOKENIZER.encode(CALL + "\n" + OTHER), END]
    assert calls_of(run(with_tools(), tokens)) == {0: ("add", {"x": 1, "y": "ö"}), 1: ("sub", {})}
    chunks = run(with_tools(parallel=False), tokens)
    assert calls_of(chunks) == {0: ("add", {"x": 1, "y": "ö"})}
    assert chunks[-1].finish_reason == "tool_calls"
    assert tokens_of(chunks) == tokens[: len(tokens_of(chunks))]
    assert len(tokens_of(chunks)) < len(TOKENIZER.encode(CALL))


def test_only_the_first_call_comes_out_though_both_were_held_for_a_stop_string() -> None:
    both = CALL + "\n" + OTHER
    chunks = run(with_tools(parallel=False, stop=(both + "!",)), [*TOKENIZER.encode(both), END])
    assert calls_of(chunks) == {0: ("add", {"x": 1, "y": "ö"})}


def test_no_call_is_plain_text_and_a_call_cut_off_is_a_length() -> None:
    text = "<tool_call> is how one would"
    chunks = run(with_tools(), [*TOKENIZER.encode(text), END])
    assert (text_of(chunks), chunks[-1].finish_reason) == (text, "stop")
    assert run(with_tools(max_tokens=50), TOKENIZER.encode(CALL))[-1].finish_reason == "length"


def test_a_marker_begun_is_text_when_the_answer_ends_there() -> None:
    chunks = run(with_tools(max_tokens=7), TOKENIZER.encode("see <tool_call>"))
    assert text_of(chunks) == TOKENIZER.decode(tokens_of(chunks))


def test_stop_strings_look_at_the_text_as_generated() -> None:
    chunks = run(with_tools(stop=('"y"',)), TOKENIZER.encode(CALL))
    assert chunks[-1].finish_reason == "tool_calls"
    assert text_of(chunks) == ""
