"""What was tried against receipts: each attack is refused in words, and costs who is attacked little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from receipt_makers import KEY, PEER_KEY, PROMPT, REQUEST, TOKENS, answer, engine, sealer, signed_by, with_provider

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import InvalidRequest, LocalError, Overloaded, RemoteError
from shoal.core.receipt import Opening, OutputOpening, Part, Receipt, Signed
from shoal.core.receipt_view import Verification
from shoal.core.request import Request, Resume, Tool
from shoal.core.seams import Generate
from shoal.node.receipts import MAX_VERIFYING, Signing
from shoal.trust.accept import accepting
from shoal.trust.check import subjects
from shoal.trust.check_audit import MAX_QUEUED_TOKENS, Audits
from shoal.trust.file import to_json
from shoal.trust.inspect import inspect
from shoal.trust.policy import Draw, Policy
from shoal.trust.receipt import MAX_OPENING_VALUES, MAX_RECEIPT_BYTES, read_opening, receipt_digest, sign
from shoal.trust.shelf import Shelf
from shoal.trust.statement import output_of


def served(folder: Path, change: Callable[[Chunk], Chunk]) -> Generate:
    """A peer's answers, its last chunk changed by `change`."""
    inner = sealer(folder, PEER_KEY).sealed_for_peers(engine)

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        async for chunk in inner(replace(request, request_id=f"abcdefghij/{request.request_id}")):
            yield chunk if chunk.receipt is None else change(chunk)

    return generate


def shows_nothing(chunk: Chunk) -> Chunk:
    assert chunk.opening is not None
    return replace(chunk, opening=replace(chunk.opening, outputs=()))


def twice_the_same_choice(chunk: Chunk) -> Chunk:
    assert chunk.receipt is not None
    return replace(chunk, receipt=sign(replace(chunk.receipt, outputs=chunk.receipt.outputs * 2), PEER_KEY))


def tokens_that_were_never_sent(chunk: Chunk) -> Chunk:
    """In front of those that were: thousands of good ones would thin out what a check sees in few bad ones."""
    assert chunk.receipt is not None
    assert chunk.opening is not None
    own = chunk.opening.outputs[0]
    text = "".join(f"w{token} " for token in TOKENS[:-1]) + "end"
    shown = OutputOpening((*(5,) * 5000, *own.tokens), "", (), own.fingerprints)
    output = output_of(chunk.opening.salt, 0, 5000, "stop", replace(shown, text=text))
    receipt = sign(replace(chunk.receipt, outputs=(output,)), PEER_KEY)
    return replace(chunk, opening=replace(chunk.opening, outputs=(shown,)), receipt=receipt)


@pytest.mark.parametrize("lie", [shows_nothing, twice_the_same_choice, tokens_that_were_never_sent])
def test_a_peers_receipt_of_another_shape_is_taken_out(tmp_path: Path, lie: Callable[[Chunk], Chunk]) -> None:
    blamed: list[str] = []
    chunks = answer(accepting(served(tmp_path, lie), PEER_KEY.public, blamed.append))
    assert (len(chunks), len(blamed), chunks[-1].receipt) == (70, 1, None)


UNSIGNABLE = replace(REQUEST, tools=(Tool("f", "", {"maximum": 10**30}),))


def test_what_has_no_canonical_bytes_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    asked: list[Request] = []

    def counted(request: Request) -> AsyncIterator[Chunk]:
        asked.append(request)
        return engine(request)

    with pytest.raises(InvalidRequest, match="cannot be signed"):
        answer(sealer(tmp_path / "a").sealed(counted), UNSIGNABLE)
    assert asked == []
    silent = replace(UNSIGNABLE, receipt=False)
    assert len(answer(sealer(tmp_path / "b", policy="always").sealed(engine), silent)) == 70


def bomb(field: str, count: int, item: bytes) -> bytes:
    """An opening whose `field` is an array of `count` small items."""
    head = b"\xa2" + cbor2.dumps("salt") + cbor2.dumps(bytes(32)) + cbor2.dumps(field)
    return head + b"\x9a" + count.to_bytes(4, "big") + item * count


@pytest.mark.parametrize(
    "data",
    [
        bomb("prompt", MAX_OPENING_VALUES + 1, b"\x05"),
        bomb("outputs", 2000, b"\xa0"),
        bomb("nested", 2000, b"\xa0"),
        b"\x81" * 100_000,
    ],
    ids=["tokens", "outputs", "nested", "deep"],
)
def test_an_opening_that_weighs_more_than_its_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        read_opening(data)


def test_parts_that_overlap_are_not_compared_again_and_again() -> None:
    shown = OutputOpening((5,) * 20_000)
    salt = bytes(32)
    output = output_of(salt, 0, 20_000, "stop", shown)
    base = Receipt(request_id="x", sequence=1, previous=bytes(32), request=bytes(32), outputs=(output,))
    inner = sign(base, PEER_KEY)
    other = replace(shown, tokens=(6,) * 20_000)
    part = Part(0, "p", 0, 20_000, receipt_digest(inner))
    outer = sign(replace(base, parts=(part,) * 1500), KEY)
    nested = Signed(inner, Opening(salt, None, (), (other,)))
    problems = inspect(Signed(outer, Opening(salt, None, (), (shown,), (nested,)))).problems
    assert sum("are not the answer's" in problem for problem in problems) <= 1
    assert any("add up" in problem for problem in problems)


def test_a_receipt_nobody_could_read_again_is_not_written(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(LocalError, match="at most"):
        shelf.append(KEY.public, lambda number, head: Receipt(request_id="x" * (MAX_RECEIPT_BYTES + 1)))
    assert shelf.num_signed() == 0


def in_turns(peers: list[tuple[str, Generate, int | None]]) -> Generate:
    """Each goes on where the one before it died."""

    async def routed(request: Request) -> AsyncIterator[Chunk]:
        made: list[int] = []
        for name, generate, stop_after in peers:
            asked = replace(request, resume=Resume(tuple(made)) if made else None)
            async for chunk in with_provider(generate, name, stop_after)(asked):
                made += chunk.token_ids
                yield chunk

    return routed


def test_a_peer_that_came_back_and_one_that_went_on_are_judged_by_their_own_parts(tmp_path: Path) -> None:
    blamed: list[str] = []
    one = accepting(served(tmp_path / "one", lambda chunk: chunk), PEER_KEY.public, blamed.append)
    routed = in_turns([("one", one, 10), ("two", one, 15), ("one", one, None)])
    last = answer(sealer(tmp_path / "own").sealed(routed))[-1]
    assert blamed == []
    assert last.receipt is not None
    parts = [(part.provider, part.first, part.count, bool(part.receipt)) for part in last.receipt.parts]
    assert parts == [("one", 0, 10, False), ("two", 10, 15, False), ("one", 25, 45, True)]
    signed = Signed(last.receipt, last.opening)
    assert inspect(signed).problems == ()
    (subject,) = subjects(signed)
    assert (subject.begins(0), subject.receipt.outputs[0].begins) == (25, 25)


def test_text_without_tokens_and_what_this_node_made_of_it_add_up(tmp_path: Path) -> None:
    async def upstream(request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(0, "w100 ")

    async def routed(request: Request) -> AsyncIterator[Chunk]:
        async for chunk in with_provider(upstream, "upstream:far")(request):
            yield chunk
        async for chunk in with_provider(engine, "local")(replace(request, resume=Resume(TOKENS[:1]))):
            yield chunk

    last = answer(sealer(tmp_path).sealed(routed))[-1]
    assert last.receipt is not None
    signed = Signed(last.receipt, last.opening)
    assert [(part.provider, part.first, part.count) for part in last.receipt.parts] == [
        ("upstream:far", 1, 0),
        ("local", 1, 69),
    ]
    assert inspect(signed).problems == ()
    assert subjects(signed)[0].begins(0) == last.receipt.outputs[0].begins == 1


def audits() -> Audits:
    return Audits([Policy("fingerprint", 1.0)], Draw(bytes(32)), {}, VirtualClock(), lambda: True)


def test_a_peer_cannot_flush_others_out_of_the_queue_of_audits(tmp_path: Path) -> None:
    signed = signed_by(sealer(tmp_path, PEER_KEY))
    assert signed.opening is not None
    made = audits()
    for _ in range(3):
        made.offer("cheat", REQUEST, signed.receipt, signed.opening)
    endless = replace(signed.opening, prompt=(1,) * (MAX_QUEUED_TOKENS - 50))
    for _ in range(5):
        made.offer("accomplice", REQUEST, signed.receipt, endless)
    for _ in range(200):
        made.offer("crowd", REQUEST, signed.receipt, signed.opening)
    assert [item.peer for _, item in made._queue].count("cheat") == 3


def test_an_answer_of_no_tokens_is_not_held_against_who_gave_it(tmp_path: Path) -> None:
    told: list[str] = []
    made = audits()
    made.unsigned = told.append
    signed = signed_by(sealer(tmp_path, PEER_KEY))
    assert signed.opening is not None
    output = replace(signed.receipt.outputs[0], num_tokens=0, begins=0, fingerprints=b"")
    empty = Chunk(
        0,
        receipt=replace(signed.receipt, outputs=(output,)),
        opening=replace(signed.opening, outputs=(OutputOpening(),)),
        usage=signed.receipt.usage,
    )

    async def silent(request: Request) -> AsyncIterator[Chunk]:
        yield empty

    answer(made.audited(silent, "peer"), REQUEST)
    assert told == []
    assert made.num_waiting == 0


def test_who_goes_on_from_text_alone_begins_where_its_own_tokens_begin(tmp_path: Path) -> None:
    """An upstream gave text without ids; how many tokens that is, the peer that goes on has to find out itself."""
    signed = signed_by(sealer(tmp_path, PEER_KEY), replace(REQUEST, resume=Resume(TOKENS[:20])))
    assert signed.opening is not None
    made = audits()
    made.offer("peer", replace(REQUEST, resume=Resume((), 0, "so far")), signed.receipt, signed.opening)
    ((_, drawn),) = made._queue
    assert drawn.subject.begins(0) == signed.receipt.outputs[0].begins == 20


def test_openings_belong_to_the_receipt_they_were_made_with(tmp_path: Path) -> None:
    made = sealer(tmp_path)
    first, second = signed_by(made), signed_by(made, replace(REQUEST, request_id="chatcmpl-2"))
    assert first.opening is not None
    assert first.opening.prompt == PROMPT
    assert not inspect(Signed(first.receipt, second.opening)).is_valid
    assert not inspect(Signed(second.receipt, first.opening)).is_valid
    assert asyncio.run(asyncio.to_thread(made.shelf.find, "chatcmpl-2")) == second.receipt


def test_many_who_bring_receipts_at_once_are_served_one_by_one_and_few_may_wait(tmp_path: Path) -> None:
    made = sealer(tmp_path)
    pair = (to_json(signed_by(made))["receipt"], None)

    async def crowd() -> list[object]:
        signing = Signing(made)
        found = await asyncio.gather(*(signing.verify([pair]) for _ in range(12)), return_exceptions=True)
        assert signing.verifying == 0
        return [*found, await signing.verify([pair])]

    found = asyncio.run(crowd())
    assert sum(isinstance(item, Overloaded) for item in found) == 12 - MAX_VERIFYING
    assert sum(isinstance(item, Verification) and item.valid for item in found) == MAX_VERIFYING + 1
