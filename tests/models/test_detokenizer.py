"""Detokenisation as tokens come equals decoding all their bytes at once, whatever the tokens are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models

from shoal.models.detokenizer import Detokenizer
from shoal.models.tokenizer import Tokenizer
from shoal.models.vocabulary import Control, Encoders, Vocabulary

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
WORDS = ("\u2581hello", "\u2581", "\u2581\u2581", "é", "€", "👩\u200d🚀", "\u0301", "")
CONTROL = ("<|end|>", "<|call|>")
VOCAB = BYTES + WORDS + CONTROL
END, CALL = len(VOCAB) - 2, len(VOCAB) - 1


def tokenizer(*, drops_space: bool) -> Tokenizer:
    """Every byte is a token, beside words and two control tokens; nothing is ever encoded with it."""
    vocabulary = Vocabulary(
        texts=VOCAB,
        alphabet="sentencepiece",
        verbatim=frozenset({END, CALL}),
        control={"<|end|>": Control(END), "<|call|>": Control(CALL)},
        bos_id=None,
        eos_id=END,
        eos_ids=frozenset({END}),
        adds_bos=False,
        drops_space=drops_space,
        has_byte_tokens=True,
    )
    empty = HfTokenizer(models.BPE())
    return Tokenizer(vocabulary, Encoders(empty, empty, lambda: empty))


PLAIN, SPACED = tokenizer(drops_space=False), tokenizer(drops_space=True)
IDS = st.lists(st.integers(0, len(VOCAB) + 2), max_size=40)


def streamed(detokenizer: Detokenizer, ids: list[int]) -> str:
    return "".join(detokenizer.push(token) for token in ids) + detokenizer.flush()


def joined(ids: list[int]) -> bytes:
    return b"".join(PLAIN.token_bytes(token) for token in ids if token < END)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(IDS)
def test_any_tokens_give_the_same_text_as_decoding_their_bytes_at_once(ids: list[int]) -> None:
    assert streamed(Detokenizer(PLAIN), ids) == joined(ids).decode("utf-8", "replace")
    expected = joined(ids).removeprefix(b" ").decode("utf-8", "replace")
    assert streamed(Detokenizer(SPACED), ids) == expected
    assert SPACED.decode([token for token in ids if token < len(VOCAB)]) == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_byte_by_byte_invalid_sequences_become_the_same_replacement_characters(data: bytes) -> None:
    assert streamed(Detokenizer(PLAIN), list(data)) == data.decode("utf-8", "replace")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=30))
def test_no_character_is_emitted_broken(text: str) -> None:
    detokenizer, seen = Detokenizer(PLAIN), ""
    for byte in text.encode("utf-8", "replace"):
        seen += detokenizer.push(byte)
        assert text.encode("utf-8", "replace").decode().startswith(seen)
    assert detokenizer.flush() == ""


@settings(max_examples=200, deadline=None, derandomize=True)
@given(IDS, IDS, IDS)
def test_a_fork_goes_its_own_way(before: list[int], left: list[int], right: list[int]) -> None:
    original = Detokenizer(SPACED)
    head = "".join(original.push(token) for token in before)
    fork = original.fork()
    assert head + streamed(fork, right) == streamed(Detokenizer(SPACED), before + right)
    assert head + streamed(original, left) == streamed(Detokenizer(SPACED), before + left)


def test_control_tokens_give_text_only_where_asked() -> None:
    ids = [*b"a", CALL, *b"b", END]
    assert streamed(Detokenizer(PLAIN), ids) == "ab"
    assert streamed(Detokenizer(PLAIN, show=frozenset({CALL})), ids) == "a<|call|>b"
    assert streamed(Detokenizer(PLAIN, show=frozenset({CALL})).fork(), ids) == "a<|call|>b"


def test_a_character_split_by_a_control_token_is_still_one_character() -> None:
    assert streamed(Detokenizer(PLAIN), [0xC3, END, 0xA9]) == "é"


def test_a_continued_text_keeps_its_leading_space() -> None:
    hello = len(BYTES)
    assert streamed(Detokenizer(SPACED), [hello, hello]) == "hello hello"
    assert streamed(Detokenizer(SPACED, at_start=False), [hello, hello]) == " hello hello"
