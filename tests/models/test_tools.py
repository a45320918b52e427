"""Tool calls: told from the template, forced by a grammar, read back while they are being written."""

from __future__ import annotations

import json
import random

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from shoal.core.chunk import ToolCallDelta
from shoal.core.errors import BadWeights, InvalidRequest
from shoal.core.request import Constraint, Tool, ToolChoice
from shoal.models.tokenizer import Tokenizer
from shoal.models.tool_parser import HERMES, LLAMA3, MISTRAL, Dialect, ToolCallParser
from shoal.models.tools import ToolFormat, has_native_tools, tool_kind
from shoal.models.vocabulary import Control, Encoders, Vocabulary

TEMPLATES = {
    "hermes": "{% if tools %}<tools>{{ tools|tojson }}</tools> answer in <tool_call></tool_call>{% endif %}",
    "llama3": '{% if tools %}<|start_header_id|>{"name": f, "parameters": x}{{ tools }}{% endif %}',
    "mistral": "{% for t in tools %}{{ t }}{% endfor %}[TOOL_CALLS] {{ messages }}",
    "generic": "{% for m in messages %}{{ m.content }}{% endfor %}",
}
UNREADABLE = [
    "{% if tools %}<tool_call><function=x></function></tool_call>{% endif %}",
    "{% if tools %}[TOOL_CALLS]f[ARGS]{}{% endif %}",
    "{% if tools %}something new{% endif %}",
    "the word tools, {{ messages }} and <tool_call>",
]


@pytest.mark.parametrize(("kind", "template"), TEMPLATES.items())
def test_the_format_is_told_from_the_template(kind: str, template: str) -> None:
    assert tool_kind(template) == kind
    assert has_native_tools(template) == (kind != "generic")


@pytest.mark.parametrize("template", UNREADABLE)
def test_formats_we_cannot_read_back_fall_back_to_plain_text(template: str) -> None:
    assert not has_native_tools(template)


def test_no_template_has_no_native_tools() -> None:
    assert not has_native_tools(None)


def test_a_template_that_is_not_jinja_is_refused() -> None:
    with pytest.raises(BadWeights, match="expected a Jinja template"):
        has_native_tools("{% if tools %}")


# ---- reading calls back ------------------------------------------------------------------------------------

Result = tuple[str, dict[int, tuple[str, str]]]


def parse(dialect: Dialect, pieces: list[str], names: tuple[str, ...] = ("f", "g")) -> Result:
    """Visible text, and each call's name and arguments. Fails if a delta breaks the order a client relies on."""
    parser = ToolCallParser(dialect, "request/0", names)
    outs = [*map(parser.push, pieces), parser.finish()]
    calls: dict[int, tuple[str, str]] = {}
    for delta in (delta for _, deltas in outs for delta in deltas):
        if delta.name is not None:
            assert delta.id is not None
            assert delta.index == len(calls)
            calls[delta.index] = (delta.name, delta.arguments)
        else:
            assert delta.index == len(calls) - 1
            calls[delta.index] = (calls[delta.index][0], calls[delta.index][1] + delta.arguments)
    assert parser.num_calls == len(calls)
    return "".join(text for text, _ in outs), calls


F = ("f", '{"a": "}<b", "c": [1, {"d": "\\"]"}]}')
G = ("g", '{"x":1}')
CASES: list[tuple[Dialect, str, Result]] = [
    (HERMES, "no call", ("no call", {})),
    (HERMES, "a < b <tool> <tool_c", ("a < b <tool> <tool_c", {})),
    (HERMES, f'hi\n<tool_call>\n{{"name": "f", "arguments": {F[1]}}}\n</tool_call>', ("hi", {0: F})),
    (HERMES, '<tool_call>{"arguments":{"x":1},"name":"g"}</tool_call>\n bye', ("\n bye", {0: G})),
    (HERMES, '<tool_call>{"name":"g"}</tool_call>\n<tool_call>{"name":"g","arguments":{"x":1}}</tool_call>\n',
     ("", {0: ("g", "{}"), 1: G})),
    (HERMES, '<tool_call>{"name":"g","arguments":"{\\"x\\":1}"}</tool_call>', ("", {0: G})),
    (HERMES, '<tool_call>{"id":3,"name":"g","arguments":null,"z":[{}]} </tool_call>.', (".", {0: ("g", "{}")})),
    (HERMES, '<tool_call>{"name":"new","arguments":{}}', ("", {0: ("new", "{}")})),
    (HERMES, "a <tool_call>{'name': 1}</tool_call> b", ("a <tool_call>{'name': 1}</tool_call> b", {})),
    (HERMES, '<tool_call>{"name":"f", "argu', ('<tool_call>{"name":"f", "argu', {})),
    (HERMES, '<tool_call><tool_call>{"name":"f"}</tool_call>', ("<tool_call>", {0: ("f", "{}")})),
    (HERMES, '<tool_call>{"name":"f","arguments":{"a":', ("", {0: ("f", '{"a":')})),
    (HERMES, '<tool_call>{"name":"f","arguments":{"a":1]} x', ("]} x", {0: ("f", '{"a":1')})),
    (HERMES, '<tool_call>{"name":"f","arguments":{},"z":?', (',"z":?', {0: ("f", "{}")})),
    (HERMES, '<tool_call>{"arguments":{}}</tool_call>', ('<tool_call>{"arguments":{}}</tool_call>', {})),
    (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name":"g","arguments":{"x":1}}] bye',
     (" bye", {0: ("f", "{}"), 1: G})),
    (MISTRAL, "see [TOOL_CALLS] nothing", ("see [TOOL_CALLS] nothing", {})),
    (LLAMA3, '{"name": "g", "parameters": {"x":1}}', ("", {0: G})),
    (LLAMA3, '\n<|python_tag|>{"name":"g","parameters":{"x":1}}; {"name":"f","parameters":{}}',
     ("", {0: G, 1: ("f", "{}")})),
    (LLAMA3, '{"name": "Bob", "age": 3}', ('{"name": "Bob", "age": 3}', {})),
    (LLAMA3, 'like {"name":"f","parameters":{}}', ('like {"name":"f","parameters":{}}', {})),
    (LLAMA3, " <|py", (" <|py", {})),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "expected"), CASES)
def test_text_and_calls_are_told_apart_however_the_text_is_cut(dialect: Dialect, text: str, expected: Result) -> None:
    assert parse(dialect, [text]) == expected
    assert parse(dialect, list(text)) == expected
    rng = random.Random(text)
    for _ in range(20):
        cuts = sorted(rng.choices(range(len(text) + 1), k=3))
        pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert parse(dialect, pieces) == expected


FRAGMENTS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", '{"name":"f","arguments":{"a":1}}']
FRAGMENTS += ['"name"', '"f"', '"arguments"', "null", " ", "\n", *'{}:,[]"\\;<1x']


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=16), st.sampled_from([HERMES, MISTRAL, LLAMA3]))
def test_any_text_gives_the_same_result_in_one_piece_and_letter_by_letter(pieces: list[str], dialect: Dialect) -> None:
    whole = "".join(pieces)
    assert parse(dialect, pieces) == parse(dialect, list(whole)) == parse(dialect, [whole])
    text, calls = parse(dialect, [whole])
    if not calls:
        assert text == whole


def test_only_text_that_may_begin_a_call_is_held_back() -> None:
    parser = ToolCallParser(HERMES, "s")
    assert parser.push("Hello") == ("Hello", ())
    assert parser.push(" world <") == (" world", ())
    assert parser.push("b>") == (" <b>", ())


def test_a_call_is_streamed_name_first_then_its_arguments() -> None:
    parser = ToolCallParser(HERMES, "s")
    assert parser.push('<tool_call>{"name": "f", "arguments": ') == ("", ())
    assert parser.push('{"a"') == ("", (ToolCallDelta(0, parse_id(0), "f"), ToolCallDelta(0, arguments='{"a"')))
    assert parser.push(': "x') == ("", (ToolCallDelta(0, arguments=': "x'),))
    assert (parser.num_calls, parser.num_complete) == (1, 0)
    assert parser.push('"}}</tool_call>') == ("", (ToolCallDelta(0, arguments='"}'),))
    assert (parser.num_calls, parser.num_complete) == (1, 1)


def parse_id(index: int) -> str:
    parser = ToolCallParser(HERMES, "s")
    _, deltas = parser.push('<tool_call>{"name":"f"}</tool_call>' * (index + 1))
    identity = [delta.id for delta in deltas if delta.id is not None][index]
    assert len(identity) == len("call_") + 24
    int(identity.removeprefix("call_"), 16)
    return identity


def test_ids_come_from_the_seed() -> None:
    assert parse_id(0) == parse_id(0) != parse_id(1)
    other = ToolCallParser(HERMES, "t").push('<tool_call>{"name":"f"}</tool_call>')[1][0].id
    assert other != parse_id(0)


# ---- grammars ----------------------------------------------------------------------------------------------

WEATHER = Tool("get_weather", "", {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"city": {"type": "string"}},
})  # fmt: skip
TOOLS = (WEATHER, Tool("now"))


def tokenizer(*markers: str, control: tuple[str, ...] = ()) -> Tokenizer:
    """Single bytes and the given markers, as a byte-level BPE."""
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|end|>", *markers]
    ids = {text: token for token, text in enumerate(texts)}
    built = HfTokenizer(models.BPE(vocab=ids, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|end|>", *control])
    built.add_tokens([AddedToken(text) for text in markers if text not in control])
    vocabulary = Vocabulary(
        texts=tuple(texts),
        alphabet="byte_level",
        verbatim=frozenset(range(256, len(texts))),
        control={text: Control(ids[text]) for text in ("<|end|>", *control)},
        bos_id=None,
        eos_id=256,
        eos_ids=frozenset({256}),
        adds_bos=False,
    )
    return Tokenizer(vocabulary, Encoders(built, built, lambda: built))


BYTES = tokenizer()
QWEN = tokenizer("<tool_call>", "</tool_call>")
MISTRAL_V3 = tokenizer("[TOOL_CALLS]", control=("[TOOL_CALLS]",))
FORMATS = {
    "hermes": ToolFormat.detect(TEMPLATES["hermes"], QWEN),
    "llama3": ToolFormat.detect(TEMPLATES["llama3"], BYTES),
    "mistral": ToolFormat.detect(TEMPLATES["mistral"], MISTRAL_V3),
    "generic": ToolFormat.detect(TEMPLATES["generic"], BYTES),
}
TOKENIZERS = {"hermes": QWEN, "llama3": BYTES, "mistral": MISTRAL_V3, "generic": BYTES}


def written(kind: str, *calls: tuple[str, str]) -> str:
    match kind:
        case "mistral":
            return "[TOOL_CALLS] [" + ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in calls) + "]"
        case "llama3":
            return "; ".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in calls)
    return "\n".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in calls)


def accepts(kind: str, constraint: Constraint | None, text: str) -> bool:
    assert constraint is not None
    assert constraint.kind == "lark"
    used = TOKENIZERS[kind]
    library = llguidance.LLTokenizer(used.hf.to_str(), n_vocab=used.vocab_size, eos_token=256)
    assert llguidance.LLMatcher.validate_grammar(constraint.value, library) == ""
    matcher = llguidance.LLMatcher(library, constraint.value)
    ids = used.encode(text, parse_special=True)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


ONE = ("get_weather", '{"city": "Paris é", "days": 3}')
TWO = ("now", "{}")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_grammar_lets_through_valid_calls_and_nothing_else(kind: str) -> None:
    required = FORMATS[kind].grammar(TOOLS, ToolChoice("required"))
    assert accepts(kind, required, written(kind, ONE))
    assert accepts(kind, required, written(kind, TWO, ONE, TWO))
    assert not accepts(kind, required, "The weather is fine.")
    assert not accepts(kind, required, "")
    assert not accepts(kind, required, written(kind, ("get_weather", '{"days": 3}')))
    assert not accepts(kind, required, written(kind, ("get_weather", '{"city": "Paris", "planet": 3}')))
    assert not accepts(kind, required, written(kind, ("now", '{"x": 1}')))
    assert not accepts(kind, required, written(kind, ("unknown", "{}")))


@pytest.mark.parametrize("kind", FORMATS)
def test_one_call_where_parallel_calls_are_not_wanted(kind: str) -> None:
    single = FORMATS[kind].grammar(TOOLS, ToolChoice("required", parallel=False))
    assert accepts(kind, single, written(kind, ONE))
    assert not accepts(kind, single, written(kind, ONE, TWO))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_named_tool_is_the_only_one(kind: str) -> None:
    named = FORMATS[kind].grammar(TOOLS, ToolChoice("named", "now"))
    assert accepts(kind, named, written(kind, TWO))
    assert not accepts(kind, named, written(kind, ONE))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_the_grammar_forces_the_parser_reads(kind: str) -> None:
    parser = FORMATS[kind].parser("seed", TOOLS)
    text, deltas = parser.push(written(kind, ONE, TWO))
    assert text == ""
    assert [delta.name for delta in deltas if delta.name] == ["get_weather", "now"]
    assert [json.loads(delta.arguments) for delta in deltas if not delta.name] == [{"city": "Paris é", "days": 3}, {}]


def test_markers_that_are_control_tokens_must_be_shown_to_the_parser() -> None:
    assert FORMATS["mistral"].show == {MISTRAL_V3.token_id("[TOOL_CALLS]")}
    assert FORMATS["hermes"].show == frozenset()


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_no_grammar_where_the_model_decides(mode: str) -> None:
    assert FORMATS["hermes"].grammar(TOOLS, ToolChoice(mode)) is None  # type: ignore[arg-type]


def test_a_choice_that_no_tool_can_meet_is_refused() -> None:
    for tools, choice in (((), ToolChoice("required")), (TOOLS, ToolChoice("named", "nope"))):
        with pytest.raises(InvalidRequest) as caught:
            FORMATS["hermes"].grammar(tools, choice)
        assert caught.value.param == "tool_choice"
