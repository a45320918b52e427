"""Whatever goes over the wire comes back equal, and nothing else comes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.chunk import Chunk, Measured, TokenLogprob, ToolCallDelta, Usage
from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import RemoteError
from shoal.core.request import Approximation, Constraint, Message, Request, Resume, Sampling, Tool, ToolCall, ToolChoice

FULL = Request(
    "r1",
    "m",
    (
        Message("user", "hi"),
        Message("assistant", "", None, (ToolCall("c", "f", "{}"),)),
        Message("tool", "x", None, (), "c"),
    ),
    Sampling(0.0, 3, 0.5, logit_bias={5: -2.0, 7: 1.5}, seed=2**64 - 1, stop=("a", "b"), logprobs=0),
    tools=(Tool("f", "d", {"type": "object", "properties": {"a": {"enum": [1, None, True, 2.5]}}}),),
    tool_choice=ToolChoice("named", "f", False),
    constraint=Constraint("regex", "a+"),
    approximation=Approximation(kv_budget=9),
    resume=Resume((1, 2), 1),
    deadline=1.5,
)
CHUNK = Chunk(
    1,
    "é",
    (4, 5),
    (TokenLogprob(4, b"\xff", -0.5, (TokenLogprob(9, b"a", -1.0),)),),
    (ToolCallDelta(0, "id", "f", "{"),),
    "stop",
    Usage(3, 4, energy_j=Measured(2.0, "rapl")),
)


@pytest.mark.parametrize("value", [FULL, CHUNK, Request("r", "m", "text"), Request("r", "m", (1, 2)), Chunk()])
def test_there_and_back(value: object) -> None:
    assert parse(type(value), decode(encode(compact(value)))) == value


def test_a_tools_schema_keeps_its_order_on_the_way() -> None:
    """A model reads it in this order: in another one it is another prompt, and an honest answer looks like a lie."""
    asked = {"type": "object", "properties": {"why": {"type": "string"}, "at": {"maximum": 1.0}}, "required": ["why"]}
    there = parse(Tool, decode(encode(compact(Tool("look", "", asked)))))
    assert list(there.parameters) == list(asked)
    assert list(there.parameters["properties"]) == ["why", "at"]
    assert there.parameters == asked


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"a": 1}', '{"a":1,"a":1}', '{"a":NaN}', '{"a":1e999}', '{"a":1.00}', "[" * 10_000,
     '{"a":' * 100 + "1" + "}" * 100, '{"a":' + "9" * 5000 + "}", '{"a":"\\u0041"}'],
)  # fmt: skip
def test_a_schema_has_one_text(text: str) -> None:
    with pytest.raises(RemoteError, match="parameters: expected an object as compact JSON text"):
        parse(Tool, {"name": "f", "parameters": text})


@pytest.mark.parametrize("value", [10**30, float("nan"), {1, 2}])
def test_a_schema_without_canonical_bytes_has_no_text(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        compact(Tool("f", "", {"a": value}))


def test_defaults_are_left_out() -> None:
    assert compact(Chunk(text="a", token_ids=(3,))) == {"text": "a", "token_ids": [3]}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3, "map of Request"),
        ({"request_id": "r", "model": "m"}, "'prompt' is missing"),
        ({"request_id": "r", "model": "m", "prompt": 5}, "prompt: expected"),
        ({"request_id": "r", "model": "m", "prompt": [{"role": "boss"}]}, r"prompt\[0\].role"),
        ({"request_id": "r", "model": "m", "prompt": "", "surprise": 1}, "unknown field 'surprise'"),
        ({"request_id": "r", "model": "m", "prompt": "", "n": True}, "n: expected int"),
        ({"request_id": "r", "model": "m", "prompt": "", "sampling": {"top_p": "1"}}, "sampling.top_p: expected float"),
        ({"request_id": "r", "model": "m", "prompt": "", "sampling": {"logit_bias": {"a": 1}}}, "logit_bias"),
    ],
)
def test_refusals_say_where(value: object, says: str) -> None:
    with pytest.raises(RemoteError, match=says):
        parse(Request, value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*Request.__slots__, *Sampling.__slots__]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_anything_is_a_request_or_the_other_sides_fault(value: object) -> None:
    try:
        request = parse(Request, value)
    except RemoteError:
        return
    assert parse(Request, compact(request)) == request
