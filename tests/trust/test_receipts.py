"""Receipts: what is signed is what was answered, anything changed is found, and nothing leaks without the salt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receipt_makers import KEY, PROMPT, REQUEST, TOKENS, answer, engine, sealer, signed_by

from shoal.core.chunk import Chunk
from shoal.core.decoding import compact
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, LocalError, RemoteError
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.receipt import Opening, OutputOpening, Receipt, Signed
from shoal.core.request import Request, Resume, Sampling
from shoal.core.seams import closing
from shoal.trust.commit import commit, is_leaf
from shoal.trust.file import from_json, parse_file, to_json
from shoal.trust.inspect import inspect
from shoal.trust.receipt import is_signed, read_opening, read_receipt, sign, write_opening, write_receipt
from shoal.trust.shelf import Shelf
from shoal.trust.statement import open_segment, prompt_commitment, request_commitment, segments, tokens_root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signed_by(sealer(tmp_path_factory.mktemp("shelf")), replace(REQUEST, n=2))


def test_an_answer_is_signed_and_its_receipt_holds(made: Signed) -> None:
    receipt, opening = made.receipt, made.opening
    assert opening is not None
    assert (receipt.node, receipt.sequence, receipt.request_id) == (KEY.public, 1, "chatcmpl-1")
    assert [output.num_tokens for output in receipt.outputs] == [70, 70]
    assert (opening.prompt, opening.outputs[0].tokens) == (PROMPT, TOKENS)
    assert opening.outputs[0].text == "".join(f"w{token} " for token in TOKENS[:-1]) + "end"
    assert receipt.sampling.seed == 3
    found = inspect(made)
    assert found.is_valid, found.problems
    assert any("70 tokens and the text match, 3 fingerprints" in line for line in found.holds)


def test_text_and_calls_come_as_they_were_and_nothing_inner_gets_out(tmp_path: Path) -> None:
    plain, signed = answer(engine), answer(sealer(tmp_path).sealed(engine))
    assert [(chunk.text, chunk.token_ids) for chunk in plain] == [(chunk.text, chunk.token_ids) for chunk in signed]
    assert not any(chunk.evidence or chunk.provider for chunk in signed)
    assert [chunk.receipt is not None for chunk in signed] == [False] * 69 + [True]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bit_flipped_is_found(made: Signed, data: st.DataObject) -> None:
    original = write_receipt(made.receipt)
    bit = data.draw(st.integers(0, 8 * len(original) - 1))
    changed = bytearray(original)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        receipt = read_receipt(bytes(changed))
    except RemoteError:
        return
    assert not is_signed(receipt)
    assert not inspect(Signed(receipt, made.opening)).is_valid


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bit_flipped_in_an_opening_is_found(made: Signed, data: st.DataObject) -> None:
    assert made.opening is not None
    original = write_opening(made.opening)
    bit = data.draw(st.integers(0, 8 * len(original) - 1))
    changed = bytearray(original)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        opening = read_opening(bytes(changed))
    except RemoteError:
        return
    assert not inspect(Signed(made.receipt, opening)).is_valid


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**63) | st.text(max_size=5) | st.binary(max_size=40) | st.just(0.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_field_of_any_other_value_is_refused_or_unsigned(made: Signed, data: st.DataObject) -> None:
    plain = compact(made.receipt)
    name = data.draw(st.sampled_from([*Receipt.__dataclass_fields__, "extra"]))
    value = data.draw(PLAIN)
    if name in plain and encode(plain[name]) == encode(value):
        return
    try:
        receipt = read_receipt(encode({**plain, name: value}))
    except RemoteError:
        return
    assert not inspect(Signed(receipt)).is_valid


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_none_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for read in (read_receipt, read_opening, parse_file):
        with pytest.raises(RemoteError):
            read(data)


def test_one_value_has_one_encoding(made: Signed) -> None:
    """A field at its default that is spelled out is the same value, so it must not be a second receipt."""
    plain = compact(made.receipt)
    with pytest.raises(RemoteError, match="canonical"):
        read_receipt(encode({**plain, "version": 1}))
    with pytest.raises(RemoteError, match="found 2"):
        read_receipt(write_receipt(replace(made.receipt, version=2)))


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("number from 1", {"sequence": 0}),
        ("number from 1", {"previous": b""}),
        ("commitments of 32", {"request": b"short"}),
        ("1 to 1024 outputs", {"outputs": ()}),
        ("can be shown", {"request_id": "\x1b[2Jgone"}),
    ],
)
def test_structure_that_cannot_be_is_named_however_well_it_is_signed(
    made: Signed, word: str, change: dict[str, object]
) -> None:
    again = sign(replace(made.receipt, **change), KEY)  # type: ignore[arg-type]
    found = inspect(Signed(again))
    assert is_signed(again)
    assert any(word in problem for problem in found.problems)


def shown(made: Signed, **change: object) -> Signed:
    assert made.opening is not None
    return Signed(made.receipt, replace(made.opening, **change))  # type: ignore[arg-type]


def test_another_answer_prompt_or_request_is_found(made: Signed) -> None:
    assert made.opening is not None
    assert made.opening.request is not None
    first, second = made.opening.outputs
    other_text = (replace(first, text="other"), second)
    other_tokens = (replace(first, tokens=(*first.tokens[:-1], 7)), second)
    other_marks = (replace(first, fingerprints=first.fingerprints[:-1]), second)
    for word, lie in (
        ("text shown", shown(made, outputs=other_text)),
        ("tokens shown", shown(made, outputs=other_tokens)),
        ("fingerprints shown", shown(made, outputs=other_marks)),
        ("2 outputs shown", shown(made, outputs=(first,))),
        ("prompt shown", shown(made, prompt=(1, 2, 3))),
        ("request shown", shown(made, request=replace(made.opening.request, prompt="hi"))),
        ("salt of 32", shown(made, salt=b"")),
    ):
        assert any(word in problem for problem in inspect(lie).problems), word


def test_without_the_salt_a_guess_cannot_be_tested(made: Signed) -> None:
    """The dictionary holds the right prompt; with any other salt no commitment of the receipt comes out."""
    dictionary = [PROMPT, *((1, 2, 3, n) for n in range(50))]
    public = write_receipt(made.receipt)
    for salt in (bytes(32), b"\xff" * 32, made.receipt.signature[:32], made.receipt.previous):
        for guess in dictionary:
            assert prompt_commitment(salt, guess) not in public
        assert request_commitment(salt, replace(REQUEST, n=2)) not in public
    assert made.opening is not None
    assert prompt_commitment(made.opening.salt, PROMPT) in public
    for secret in (
        b"a secret",
        b"end",
        encode(list(TOKENS)),
        made.opening.salt,
        made.opening.outputs[0].fingerprints[0],
    ):
        assert secret not in public


def test_equal_answers_look_unequal(tmp_path: Path) -> None:
    made = sealer(tmp_path)
    first, second = signed_by(made).receipt, signed_by(made).receipt
    assert first.prompt != second.prompt
    assert first.outputs[0].tokens != second.outputs[0].tokens


def test_a_part_can_be_shown_without_the_rest(made: Signed) -> None:
    assert made.opening is not None
    for position in range(3):
        opening, data = open_segment(made.opening.salt, 1, made.opening.outputs[1].tokens, position)
        root = made.receipt.outputs[1].tokens
        assert is_leaf(root, opening, data)
        assert not is_leaf(root, opening, data + b"\0")
        assert not is_leaf(root, replace(opening, index=(position + 1) % 3), data)
        assert not is_leaf(root, replace(opening, num_leaves=4), data)
        assert not is_leaf(made.receipt.outputs[0].tokens, opening, data)
        assert made.opening.salt not in (opening.salt, *opening.path)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 95, 96, 97, 1000])
def test_trees_of_any_size_open_everywhere(length: int) -> None:
    salt, tokens = bytes(32), tuple(range(length))
    root = tokens_root(salt, 0, tokens)
    for position in range(len(segments(tokens))):
        assert is_leaf(root, *open_segment(salt, 0, tokens, position))
    assert commit(salt, "tokens 0 0", b"") != root


def test_no_receipt_where_none_is_wanted_or_made(tmp_path: Path) -> None:
    asked, silent = sealer(tmp_path / "a"), replace(REQUEST, receipt=False)
    assert answer(asked.sealed(engine), silent) == answer(engine, silent)
    assert asked.signed == 0
    with pytest.raises(InvalidRequest, match="--receipts"):
        answer(sealer(tmp_path / "b", policy="off").sealed(engine))
    always = sealer(tmp_path / "c", policy="always")
    assert answer(always.sealed(engine), silent)[-1].receipt is None
    assert always.shelf.find("chatcmpl-1") is not None
    assert always.openings.get("chatcmpl-1") is not None


def test_a_seed_that_nobody_named_is_in_the_receipt(tmp_path: Path) -> None:
    made = signed_by(sealer(tmp_path), replace(REQUEST, sampling=Sampling()))
    assert made.receipt.sampling.seed is not None
    assert inspect(made).is_valid
    assert (
        signed_by(sealer(tmp_path), replace(REQUEST, sampling=Sampling(temperature=0.0))).receipt.sampling.seed is None
    )


def test_no_weights_are_named_where_the_engine_here_shows_no_evidence(tmp_path: Path) -> None:
    """As for a swarm of models, whose answer is nobody's alone."""

    async def swarm(request: Request) -> AsyncIterator[Chunk]:
        async for chunk in engine(replace(request, receipt=False)):
            yield chunk

    last = answer(sealer(tmp_path).sealed(swarm), replace(REQUEST, model="swarm:tiny"))[-1]
    assert last.receipt is not None
    assert (last.receipt.model.name, last.receipt.model.weights) == ("swarm:tiny", b"")
    assert (last.receipt.outputs[0].begins, last.receipt.outputs[0].fingerprints) == (70, b"")
    assert inspect(Signed(last.receipt, last.opening)).is_valid


def test_an_answer_that_goes_on_says_from_where(tmp_path: Path) -> None:
    made = signed_by(sealer(tmp_path), replace(REQUEST, resume=Resume(TOKENS[:40])))
    assert (made.receipt.outputs[0].num_tokens, made.receipt.outputs[0].begins) == (70, 40)
    assert inspect(made).is_valid


def test_what_fails_takes_no_number(tmp_path: Path) -> None:
    made = sealer(tmp_path)

    async def broken(request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(0, "x", (1,))
        raise LocalError("the runner failed")

    with pytest.raises(LocalError, match="runner"):
        answer(made.sealed(broken))
    assert signed_by(made).receipt.sequence == 1


def test_what_is_cancelled_takes_no_number(tmp_path: Path) -> None:
    made = sealer(tmp_path)

    async def leave() -> None:
        async with closing(made.sealed(engine)(REQUEST)) as chunks:
            async for _ in chunks:
                return

    asyncio.run(leave())
    assert (made.signed, made.shelf.num_signed()) == (0, 0)
    assert signed_by(made).receipt.sequence == 1


def test_a_disk_that_fails_withholds_the_receipt_and_only_from_who_asked_the_end(tmp_path: Path) -> None:
    made = sealer(tmp_path, policy="always")

    async def failing(request: Request) -> AsyncIterator[Chunk]:
        async for chunk in engine(request):
            if chunk.usage is not None:
                made.shelf.close()
            yield chunk

    with pytest.raises(LocalError, match="not given out"):
        answer(made.sealed(failing))
    silent = answer(made.sealed(engine), replace(REQUEST, receipt=False))
    assert (len(silent), silent[-1].receipt, made.signed) == (70, None, 0)


def test_nothing_is_computed_for_a_receipt_that_cannot_be_written_down(tmp_path: Path) -> None:
    made, script = sealer(tmp_path), ScriptedGenerate(words("x"))
    made.shelf.check_writable()
    assert signed_by(made).receipt.sequence == 1, "looking leaves no transaction open"
    roomy, made.shelf = made.shelf, Shelf(tmp_path, min_free_bytes=2**62)
    for generate in (made.sealed(script), made.sealed_for_peers(script)):
        with pytest.raises(LocalError, match=f"bytes left, expected {2**62} at least; make room"):
            answer(generate)
    assert not script.seen
    assert answer(made.sealed(script), replace(REQUEST, receipt=False)), "who wants none is served"
    made.shelf = roomy
    roomy.close()
    with pytest.raises(LocalError, match="could not be written down"):
        answer(made.sealed(script))
    assert len(script.seen) == 1


def test_files_hold_receipts_in_any_of_three_ways(made: Signed) -> None:
    as_json = to_json(made)
    assert from_json(as_json) == made
    assert parse_file(json.dumps({"choices": [], "receipt": as_json}).encode()) == [made]
    assert parse_file(json.dumps([as_json, as_json]).encode()) == [made, made]
    assert parse_file(write_receipt(made.receipt)) == [Signed(made.receipt)]


BAD_FILES = [
    b"",
    b"   \n",
    b"not a receipt",
    b"{",
    b"{}",
    b'{"receipt": 5}',
    b'{"receipt": "%%%"}',
    b'{"receipt": "aGVsbG8="}',
    b'{"receipt": "oA", "opening": "oA=="}',
    b"[" * 100_000,
    b"\xff\xfe\x00",
    b"\xa1\x67version\x02",
]


@pytest.mark.parametrize("data", BAD_FILES, ids=range(len(BAD_FILES)))
def test_files_that_hold_none_say_so(data: bytes) -> None:
    with pytest.raises(RemoteError):
        parse_file(data)


def test_an_empty_receipt_is_well_formed_and_invalid() -> None:
    assert not inspect(Signed(Receipt())).is_valid
    assert not inspect(Signed(Receipt(), Opening(bytes(32), None, (), (OutputOpening(),)))).is_valid
