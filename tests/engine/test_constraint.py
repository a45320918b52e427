"""Random logits under a grammar: whatever is drawn, the finished output belongs to the language."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import InvalidRequest, LocalError, Unsupported
from shoal.core.request import Constraint, Sampling
from shoal.engine.constraint import Grammars, Matcher
from shoal.engine.sampler import SamplerState, sample
from shoal.models import tokenizer_gguf
from shoal.models.byte_level import CHAR_OF_BYTE
from shoal.models.checkpoint import open_checkpoint
from shoal.models.tokenizer import Tokenizer, load_tokenizer

END, OTHER_END, MARK = 0, 1, 2
WORDS = (
    '":',
    '",',
    '{"',
    "name",
    "true",
    "false",
    "null",
    "größe",
    "日本",
    "color",
    "red",
    "ab",
    "}}",
    "]}",
    " the",
    " quick",
)


def tiny_tokenizer(end_ids: bool = True) -> Tokenizer:
    """Byte-level BPE: 256 bytes, every beginning of each of WORDS, and control tokens."""
    tokens = ["<|im_end|>", "<|endoftext|>", "<|mark|>"] + [CHAR_OF_BYTE[byte] for byte in range(256)]
    merges = []
    for word in WORDS:
        pieces = [CHAR_OF_BYTE[byte] for byte in word.encode()]
        for size in range(1, len(pieces)):
            pair = f"{''.join(pieces[:size])} {pieces[size]}"
            if pair not in merges:
                merges.append(pair)
                tokens.append(pair.replace(" ", ""))
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens if end_ids else [f"<{number}>" for number in range(3)] + tokens[3:],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        **({"tokenizer.ggml.eos_token_id": END} if end_ids else {}),
    }
    return Tokenizer(*tokenizer_gguf.read(metadata))


TOKENIZER = tiny_tokenizer()
GRAMMARS = Grammars(TOKENIZER)
ENDS = {END, OTHER_END}


def matcher(kind: Any, value: str) -> Matcher:
    return GRAMMARS.matcher(Constraint(kind, value))


def allowed(at: Matcher) -> list[int]:
    return np.flatnonzero(at.mask()).tolist()


def written(at: Matcher, text: str) -> Matcher:
    for token in TOKENIZER.encode(text):
        at.accept(token)
    return at


def random_text(constraint: Constraint, seed: int, max_tokens: int = 4000) -> str:
    """Sampled from noise under the grammar, with end of strings and of the whole somewhat likelier; must end."""
    rng = np.random.default_rng(seed)
    likelier = dict.fromkeys((END, *TOKENIZER.encode('"'), *TOKENIZER.encode("]")), 2.0)
    state = SamplerState(
        Sampling(seed=seed, logit_bias=likelier),
        choice=0,
        prompt=(),
        vocab_size=TOKENIZER.vocab_size,
        eos_ids=TOKENIZER.eos_ids,
        matcher=GRAMMARS.matcher(constraint),
    )
    tokens: list[int] = []
    while len(tokens) < max_tokens:
        logits = rng.standard_normal((1, TOKENIZER.vocab_size + 13)).astype(np.float32)  # padded, as some models are
        token = sample(logits, [state])[0].token_id
        state.accept(token)
        if token in ENDS:
            return TOKENIZER.decode(tokens)
        tokens.append(token)
    raise AssertionError(f"no end within {max_tokens} tokens: {TOKENIZER.decode(tokens)[:300]!r}")


# ---- JSON Schema --------------------------------------------------------------------------------------------


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def array(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": record(
        {"name": {"type": "string", "maxLength": 12}, "where": record({"x": {"type": "number"}}, y={"type": "integer"})}
    ),
    "enum": {"enum": ["red", "größe", "日本", '"quoted" \\ and\nline', 3, 1.5, None, True]},
    "array": array({"type": "integer", "minimum": -5, "maximum": 300}, 2, 6),
    "numbers": array({"type": "number", "exclusiveMinimum": 0.5, "maximum": 99}, 3, 3),
    "unicode": record({"größe": {"const": "日本 😀"}}, **{"日 本": {"type": "string", "maxLength": 3}}),
    "any_of": {"anyOf": [{"type": "boolean"}, {"type": "null"}, {"type": "string", "pattern": "^[a-z]{2,5}$"}]},
    "one_of": {"oneOf": [record({"kind": {"const": "a"}, "n": {"type": "integer"}}), record({"kind": {"const": "b"}})]},
    "recursive": {
        "$defs": {"tree": record({"value": DIGIT}, children=array({"$ref": "#/$defs/tree"}, 0, 1))},
        "$ref": "#/$defs/tree",
    },
    "formats": array({"type": "string", "format": "date"}, 1, 2),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_any_finished_output_parses_and_validates(name: str) -> None:
    texts = set()
    for seed in range(8):
        text = random_text(Constraint("json_schema", json.dumps(SCHEMAS[name])), seed)
        jsonschema.validate(json.loads(text), SCHEMAS[name])
        texts.add(text)
    assert len(texts) > 1, "a grammar, not a fixed text"


def test_the_schema_true_allows_any_json() -> None:
    json.loads(random_text(Constraint("json_schema", "true"), 3))
    written(matcher("json_schema", "true"), '{"a": [null, 1.5e3, "ü"]}').accept(END)


def test_white_space_is_allowed_but_not_for_ever() -> None:
    schema = json.dumps(
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    )
    written(matcher("json_schema", schema), '{\n    "a" : 1\n}').accept(END)
    with pytest.raises(LocalError, match="not allowed here"):
        written(matcher("json_schema", schema), "{" + " " * 33)


# ---- regular expressions and Lark ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([r"[0-9]{3}-[a-f]+", r"(red|color|日本){2,4}", r"a?b?c?", r"größe \w{1,4}!"]), st.integers(0, 10**6)
)
def test_any_finished_output_matches_the_whole_expression(expression: str, seed: int) -> None:
    assert re.fullmatch(expression, random_text(Constraint("regex", expression), seed))


def test_any_finished_output_parses_as_arithmetic() -> None:
    grammar = 'start: sum\nsum: item ("+" item)*\nitem: NUMBER | "(" sum ")"\nNUMBER: /[1-9][0-9]{0,3}/'
    values = {eval(random_text(Constraint("lark", grammar), seed), {"__builtins__": {}}) for seed in range(12)}
    assert len(values) > 3


def test_a_grammar_may_name_control_tokens_but_text_never_reaches_them() -> None:
    named = matcher("lark", 'start: <|mark|> "ab"')
    assert allowed(named) == [MARK]
    named.accept(MARK)
    assert MARK not in allowed(named)
    assert MARK not in allowed(matcher("regex", r"(?s:.*)"))


# ---- ends ---------------------------------------------------------------------------------------------------


def test_end_tokens_come_only_where_the_output_is_complete_and_are_forced_where_nothing_else_can() -> None:
    at = matcher("regex", "a(b|bc)")
    assert not ENDS & set(allowed(at))
    assert not at.is_accepting
    written(at, "ab")
    assert at.is_accepting
    assert not at.is_stopped
    assert set(allowed(at)) == {*ENDS, *TOKENIZER.encode("c")}
    written(at, "c")
    assert at.is_stopped
    assert set(allowed(at)) == ENDS
    at.accept(OTHER_END)
    assert at.is_stopped
    for token in (END, *TOKENIZER.encode("c")):
        with pytest.raises(LocalError, match="not allowed here"):
            at.accept(token)


def test_nothing_follows_an_end_even_where_the_language_goes_on() -> None:
    at = written(matcher("regex", "a*"), "a")
    at.accept(END)
    with pytest.raises(LocalError, match="not allowed here"):
        written(at, "a")
    at.rollback(1)
    written(at, "a")


def test_a_token_that_is_not_allowed_is_refused_and_nothing_moves() -> None:
    at = matcher("regex", "ab+")
    for token in (END, MARK, TOKENIZER.encode("x")[0]):
        with pytest.raises(LocalError, match=f"token {token} is not allowed"):
            at.accept(token)
    written(at, "abb").accept(END)


# ---- rollback and fork --------------------------------------------------------------------------------------


def walk(at: Matcher, seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while choices := allowed(at):
        token = int(rng.choice(choices))
        at.accept(token)
        yield token
        if token in ENDS:
            return


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(["nested", "array", "recursive"]), st.integers(0, 10**6), st.data())
def test_rollback_and_fork_come_to_the_place_that_replay_comes_to(name: str, seed: int, data: st.DataObject) -> None:
    """Undone across the end token, too: llguidance does not count that one, and once undid a letter in its place."""
    source = json.dumps(SCHEMAS[name])
    at, history = matcher("json_schema", source), list[int]()
    history.extend(islice(walk(at, seed), 60))
    before, mask = (at.is_accepting, at.is_stopped), at.mask()
    undone = data.draw(st.integers(0, len(history)))
    twin = at.fork()
    twin.rollback(undone)
    replayed = matcher("json_schema", source)
    for token in history[: len(history) - undone]:
        replayed.accept(token)
    assert (twin.is_accepting, twin.is_stopped) == (replayed.is_accepting, replayed.is_stopped)
    assert np.array_equal(twin.mask(), replayed.mask())
    assert np.array_equal(at.mask(), mask), "the fork moved, not this"
    for token in history[len(history) - undone :]:
        twin.accept(token)
    assert (at.is_accepting, at.is_stopped) == before == (twin.is_accepting, twin.is_stopped)
    assert np.array_equal(at.mask(), twin.mask())


def test_a_sampler_takes_its_grammar_along() -> None:
    state = SamplerState(
        Sampling(temperature=0),
        choice=0,
        prompt=(),
        vocab_size=TOKENIZER.vocab_size,
        eos_ids=TOKENIZER.eos_ids,
        matcher=matcher("regex", "xyz"),
    )
    logits = np.zeros((1, TOKENIZER.vocab_size), np.float32)

    def step(at: SamplerState) -> str:
        token = sample(logits, [at])[0].token_id
        at.accept(token)
        return TOKENIZER.decode([token], skip_special=False)

    assert [step(state) for _ in range(3)] == ["x", "y", "z"]
    twin = state.fork(1)
    state.rollback(2)
    assert [step(state) for _ in range(3)] == ["y", "z", "<|im_end|>"]
    assert step(twin) == "<|im_end|>"


def test_rollback_past_the_beginning_is_refused() -> None:
    with pytest.raises(LocalError, match="cannot undo 3 tokens"):
        written(matcher("regex", "a*"), "a").rollback(3)


# ---- what clients send --------------------------------------------------------------------------------------


PATTERNS = json.dumps({"type": "object", "patternProperties": {f"^x{i}$": {} for i in range(2000)}})
"""Each is compared with each: this one kept a helper thread for more than a minute."""


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("json_schema", "", "EOF"),
        ("json_schema", '{"type":', "expected value|EOF"),
        ("json_schema", '{"type": "objec"}', "Invalid type: objec"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("json_schema", '{"$ref": "http://example.com/schema"}', "not present"),
        ("json_schema", '{"$ref": "#"}', "no output can begin"),
        ("json_schema", "false", "Expecting object schema"),
        ("json_schema", "[]", "object"),
        ("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000, "recursion limit"),
        ("regex", "(a", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", r"[^\s\S]", "no output can begin"),
        ("regex", "(" * 3000 + "a" + ")" * 3000, "nest"),
        ("lark", "start: missing", "unknown name"),
        ("lark", "start: start", "no output can begin"),
        ("lark", "start: " + "(" * 20_000 + '"a"' + ")" * 20_000, "nested"),
        ("regex", "a" * 70_000, "at most 65536 characters"),
        ("lark", "start: " + "a" * 300_000, "at most 262144 characters"),
        ("json_schema", PATTERNS, "at most 2000 properties in an object and 64 patternProperties in all"),
        ("lark", f"start: %json {PATTERNS}", "64 patternProperties"),
        ("json_schema", json.dumps({"items": {"properties": {f"p{i}": {} for i in range(2001)}}}), "2000 properties"),
    ],
)
def test_what_no_grammar_can_be_made_of_is_refused_in_words(kind: Any, value: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GRAMMARS.matcher(Constraint(kind, value), param="text.format")
    assert caught.value.param == "text.format"
    assert str(caught.value).startswith(f"text.format: cannot make a grammar of this {kind}: ")
    assert re.search(reason, str(caught.value))
    assert len(str(caught.value)) < 600
    assert "non-verbose" not in str(caught.value)


DOUBLING = "start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(200)) + '\na200: "x"'
WIDE = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2500)}}
CROSS = {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(24)]}


@pytest.mark.parametrize(
    ("kind", "value", "is_refused"),
    [
        ("regex", ".*a.{25}", False),
        ("lark", DOUBLING, True),
        ("json_schema", json.dumps(WIDE), True),
        ("json_schema", json.dumps(CROSS), True),
    ],
)
def test_a_grammar_that_explodes_is_refused_and_a_heavy_one_followed(kind: Any, value: str, is_refused: bool) -> None:
    """Refused at once or on the way, by whoever finds out; each step takes milliseconds on an idle machine."""
    slowest, refusal = 0.0, None
    try:
        steps = walk(matcher(kind, value), seed=1)
        for _ in range(150):
            start = time.perf_counter()
            next(steps, None)
            slowest = max(slowest, time.perf_counter() - start)
    except InvalidRequest as error:
        refusal = error.param
    assert refusal == ("response_format" if is_refused else None)
    assert slowest < 2


def test_a_grammar_is_compiled_once_and_matchers_of_it_are_apart() -> None:
    grammars = Grammars(TOKENIZER)
    constraint = Constraint("regex", "ab")
    with ThreadPoolExecutor(4) as pool:
        matchers = list(pool.map(lambda _: grammars.matcher(constraint), range(16)))
    written(matchers[0], "ab")
    assert grammars._compiled.cache_info().currsize == 1
    assert all(np.array_equal(one.mask(), matcher("regex", "ab").mask()) for one in matchers[1:])


def test_a_model_without_end_tokens_cannot_be_constrained() -> None:
    with pytest.raises(Unsupported, match="no end token"):
        Grammars(tiny_tokenizer(end_ids=False))


@pytest.mark.real
def test_the_default_model_s_vocabulary_writes_any_json_and_only_json(default_gguf: Path) -> None:
    """49,152 tokens: what its own tokenizer makes of a JSON text is allowed; no answer begins otherwise."""
    tokenizer = load_tokenizer(open_checkpoint(default_gguf).tokenizer)
    grammars = Grammars(tokenizer)
    constraint = Constraint("json_schema", json.dumps(SCHEMAS["unicode"]))
    for text in ('{"größe": "日本 😀"}', '{\n  "größe" : "日本 😀",\n  "日 本": "éö\\n"\n}'):
        at = grammars.matcher(constraint)
        for token in tokenizer.encode(text):
            assert at.mask()[token]
            at.accept(token)
        assert set(np.flatnonzero(at.mask()).tolist()) >= tokenizer.eos_ids
    refused = grammars.matcher(constraint).mask()
    assert all(tokenizer.token_bytes(token).lstrip().startswith(b"{") for token in np.flatnonzero(refused).tolist())
