"""Receipts of peers: true ones become parts of the asking node's own, others are taken out and held against them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from receipt_makers import KEY, PEER_KEY, REQUEST, TOKENS, answer, engine, sealer, with_provider

from shoal.core.chunk import Chunk, Usage
from shoal.core.receipt import Part, Receipt, Signed
from shoal.core.request import Request, Resume, Tool
from shoal.core.seams import Generate
from shoal.node.receipts import view
from shoal.trust.accept import accepting
from shoal.trust.inspect import inspect
from shoal.trust.receipt import receipt_digest, sign
from shoal.trust.seal import MAX_SENT_OPENING_BYTES, Sealer

ASKED = replace(REQUEST, request_id="abcdefghij/chatcmpl-1")
"""As a peer that was asked by abcdefghij calls it."""


@pytest.fixture
def peer(tmp_path: Path) -> Sealer:
    return sealer(tmp_path / "peer", PEER_KEY)


def served(peer: Sealer) -> Generate:
    """The peer's answers as they come over the wire, under the peer's name of the request."""
    inner = peer.sealed_for_peers(engine)
    return lambda request: inner(replace(request, request_id=f"abcdefghij/{request.request_id}"))


def altered(generate: Generate, change: Callable[[Chunk], Chunk]) -> Generate:
    async def changed(request: Request) -> AsyncIterator[Chunk]:
        async for chunk in generate(request):
            yield change(chunk)

    return changed


def test_an_honest_peers_receipt_comes_whole(peer: Sealer) -> None:
    blamed: list[str] = []
    request = replace(REQUEST, n=2, tools=(Tool("f"),))
    last = answer(accepting(served(peer), PEER_KEY.public, blamed.append), request)[-1]
    assert blamed == []
    assert last.receipt is not None
    assert last.receipt.node == PEER_KEY.public
    assert last.opening is not None
    assert last.opening.outputs[1].text.startswith("w101 ")
    assert inspect(Signed(last.receipt, last.opening)).is_valid


def test_the_peer_sends_back_nothing_the_asker_has(peer: Sealer) -> None:
    opening = answer(served(peer))[-1].opening
    assert opening is not None
    assert (opening.request, opening.outputs[0].text) == (None, "")
    assert opening.outputs[0].fingerprints


def other_signer(chunk: Chunk) -> Chunk:
    return chunk if chunk.receipt is None else replace(chunk, receipt=sign(chunk.receipt, KEY))


def resigned(**change: object) -> Callable[[Chunk], Chunk]:
    def apply(chunk: Chunk) -> Chunk:
        if chunk.receipt is None:
            return chunk
        return replace(chunk, receipt=sign(replace(chunk.receipt, **change), PEER_KEY))  # type: ignore[arg-type]

    return apply


def other_last_token(chunk: Chunk) -> Chunk:
    return chunk if chunk.usage is None else replace(chunk, token_ids=(9,))


def other_text(chunk: Chunk) -> Chunk:
    return replace(chunk, text=chunk.text.replace("w110", "w911"))


def longer_end(chunk: Chunk) -> Chunk:
    return chunk if chunk.usage is None else replace(chunk, finish_reason="length")


LIES: list[tuple[str, Callable[[Chunk], Chunk]]] = [
    ("signed by another", other_signer),
    ("another request", resigned(request_id="chatcmpl-2")),
    ("expected a number from 1", resigned(sequence=0)),
    ("names others", resigned(parts=(Part(0, "x", 0, 70),))),
    ("not those it sent", other_last_token),
    ("text shown", other_text),
    ("ended otherwise", longer_end),
    ("1 to 1024 outputs", resigned(outputs=())),
    ("commitments", resigned(request=b"")),
]


@pytest.mark.parametrize(("word", "lie"), LIES, ids=[word for word, _ in LIES])
def test_a_receipt_that_does_not_hold_is_removed_and_counted(
    peer: Sealer, word: str, lie: Callable[[Chunk], Chunk]
) -> None:
    blamed: list[str] = []
    chunks = answer(accepting(altered(served(peer), lie), PEER_KEY.public, blamed.append))
    assert len(chunks) == 70
    assert (chunks[-1].receipt, chunks[-1].opening) == (None, None)
    assert len(blamed) == 1
    assert word in blamed[0]


def test_an_older_receipt_for_the_same_tokens_does_not_fit_another_request(peer: Sealer) -> None:
    old = answer(served(peer), replace(REQUEST, prompt="another"))[-1]

    def replay(chunk: Chunk) -> Chunk:
        return chunk if chunk.receipt is None else replace(chunk, receipt=old.receipt, opening=old.opening)

    blamed: list[str] = []
    answer(accepting(altered(served(peer), replay), PEER_KEY.public, blamed.append))
    assert "request" in blamed[0]


def test_no_receipt_is_no_lie_and_unasked_ones_are_not_looked_at(peer: Sealer) -> None:
    blamed: list[str] = []
    assert answer(accepting(engine, PEER_KEY.public, blamed.append))[-1].receipt is None
    silent = replace(REQUEST, receipt=False)
    assert answer(accepting(served(peer), PEER_KEY.public, blamed.append), silent)[-1].receipt is None
    assert blamed == []


def test_a_node_that_signs_nothing_still_serves_peers(tmp_path: Path) -> None:
    off = sealer(tmp_path, PEER_KEY, policy="off")
    last = answer(off.sealed_for_peers(engine))[-1]
    assert (last.receipt, last.evidence, last.finish_reason) == (None, None, "stop")


def test_the_askers_receipt_names_the_peers(peer: Sealer, tmp_path: Path) -> None:
    own = sealer(tmp_path / "own")
    routed = with_provider(accepting(served(peer), PEER_KEY.public, lambda reason: None), "peer-1")
    last = answer(own.sealed(routed))[-1]
    assert last.receipt is not None
    assert last.opening is not None
    (part,) = last.receipt.parts
    (nested,) = last.opening.nested
    assert (part.provider, part.first, part.count) == ("peer-1", 0, 70)
    assert part.receipt == receipt_digest(nested.receipt)
    assert last.receipt.model.weights == b""
    assert last.opening.outputs[0].fingerprints == ()
    assert inspect(Signed(last.receipt, last.opening)).problems == ()


def test_an_upstream_that_sends_text_alone_is_bound_by_its_text(tmp_path: Path) -> None:
    async def upstream(request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(0, "only ")
        yield Chunk(0, "text", finish_reason="stop", usage=Usage(3, 2))

    last = answer(sealer(tmp_path).sealed(with_provider(upstream, "upstream:far")))[-1]
    assert last.receipt is not None
    assert last.opening is not None
    signed = Signed(last.receipt, last.opening)
    assert [(part.provider, part.count) for part in last.receipt.parts] == [("upstream:far", 0)]
    assert (last.receipt.prompt, last.receipt.outputs[0].num_tokens) == (b"", 0)
    assert inspect(signed).is_valid
    assert view(signed).parts == ("choice 0: text without token ids by upstream:far, who signed nothing",)
    other = replace(last.opening, outputs=(replace(last.opening.outputs[0], text="other"),))
    assert not inspect(Signed(last.receipt, other)).is_valid


def failing_over(first: Generate, second: Generate, after: int) -> Generate:
    """The first provider dies after some tokens; the second goes on."""

    async def routed(request: Request) -> AsyncIterator[Chunk]:
        made: list[int] = []
        async for chunk in with_provider(first, "peer-1", after)(request):
            made += chunk.token_ids
            yield chunk
        async for chunk in with_provider(second, "local")(replace(request, resume=Resume(tuple(made)))):
            yield chunk

    return routed


def test_an_answer_that_several_made_has_their_parts(peer: Sealer, tmp_path: Path) -> None:
    own = sealer(tmp_path / "own")
    asked = accepting(served(peer), PEER_KEY.public, lambda reason: None)
    last = answer(own.sealed(failing_over(asked, engine, 20)))[-1]
    assert last.receipt is not None
    parts = [(part.provider, part.first, part.count, bool(part.receipt)) for part in last.receipt.parts]
    assert parts == [("peer-1", 0, 20, False), ("local", 20, 50, False)]
    assert last.receipt.outputs[0].begins == 20
    assert last.opening is not None
    assert last.opening.outputs[0].tokens == TOKENS
    assert inspect(Signed(last.receipt, last.opening)).problems == ()
    back = answer(own.sealed(failing_over(engine, asked, 20)))[-1]
    assert back.receipt is not None
    assert inspect(Signed(back.receipt, back.opening)).problems == ()


def test_a_nested_receipt_of_other_tokens_is_found(peer: Sealer, tmp_path: Path) -> None:
    own = sealer(tmp_path / "own")
    routed = with_provider(accepting(served(peer), PEER_KEY.public, lambda reason: None), "peer-1")
    last = answer(own.sealed(routed))[-1]
    assert last.receipt is not None
    assert last.opening is not None
    other = answer(accepting(served(peer), PEER_KEY.public, lambda reason: None), replace(REQUEST, n=2))[-1]
    assert other.receipt is not None
    swapped = replace(last.opening, nested=(Signed(other.receipt, other.opening),))
    assert any("missing" in problem for problem in inspect(Signed(last.receipt, swapped)).problems)
    (part,) = last.receipt.parts
    forged = replace(last.receipt, parts=(replace(part, receipt=receipt_digest(other.receipt), choice=1),))
    found = inspect(Signed(sign(forged, KEY), swapped)).problems
    assert any("are not the answer's" in problem for problem in found)


def test_an_opening_too_long_for_a_message_stays_away(tmp_path: Path) -> None:
    async def endless(request: Request) -> AsyncIterator[Chunk]:
        tokens = tuple(range(2**31 - 120_000, 2**31))
        yield Chunk(0, "x", tokens, finish_reason="length", usage=Usage(1, len(tokens)))

    made = sealer(tmp_path, PEER_KEY)
    last = answer(made.sealed_for_peers(endless))[-1]
    assert isinstance(last.receipt, Receipt)
    assert last.opening is None
    assert MAX_SENT_OPENING_BYTES < 2**20
    blamed: list[str] = []
    kept = answer(accepting(made.sealed_for_peers(endless), PEER_KEY.public, blamed.append))[-1]
    assert kept.receipt is not None
    assert blamed == []
