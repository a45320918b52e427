"""Models found by name or hash among peers, and what is believed of the answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, BadWeights, InvalidRequest, PeerFault, Unavailable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.content import Job
from shoal.mesh.content.messages import piece_bytes
from shoal.mesh.dht import Dht, Ground, Options
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.peer_id import PeerId
from shoal.models.catalogue import CATALOGUE
from shoal.models.digest import no_progress
from shoal.models.store import Record, Store
from shoal.node import mesh_pull
from shoal.node.config import NodeConfig
from shoal.node.mesh_pull import Wanted, _plain, wanted
from shoal.node.mesh_search import Wish, choose
from shoal.node.model_shelf import FIND, ModelFile, ModelShelf, find_bytes, found_bytes, parse_find, parse_found


def file(blob: int, sha256: str = "aa") -> ModelFile:
    return ModelFile("m", bytes([blob]) * 32, 10, sha256, "m.gguf")


def test_without_a_pinned_hash_the_file_most_peers_have_is_taken_with_one_only_that_file() -> None:
    answers = [(file(1),), (file(2),), (file(2), file(3, "bb"))]
    assert choose(answers, Wish("m", "")) == file(2)
    assert choose(answers, Wish("m", "bb")) == file(3, "bb")
    assert choose(answers, Wish("m", "cc")) is None
    assert choose([], Wish("m", "")) is None
    assert choose(answers, Wish("m", "bb", 11)) is None, "the hash that is pinned, with a size that cannot be"
    assert choose(answers, Wish("m", "aa", 10, frozenset({file(2).blob}))) == file(1), "blobs that were wrong"


def test_a_catalogue_name_is_pinned_any_other_name_is_plain() -> None:
    entry = CATALOGUE[0]
    assert wanted(entry.aliases[0]) == Wanted(
        entry.name, entry.source.member_sha256, entry.source.member_size_bytes, entry.name, entry.licence
    )
    assert wanted("Mine") == Wanted("mine", "", 0, "mesh:mine", None)
    with pytest.raises(BadConfig):
        wanted("../mine")


@pytest.mark.parametrize("name", ["../x.gguf", "/etc/x.gguf", ".x.gguf", "x.sh", "a\n.gguf", "", "..", "record.json"])
def test_a_peers_file_name_never_leaves_the_models_folder(name: str) -> None:
    assert _plain(name, "m") == "m.gguf"


def test_a_plain_file_name_is_kept() -> None:
    assert _plain("Tiny-Q4_1.gguf", "m") == "Tiny-Q4_1.gguf"


def test_messages_survive_the_wire() -> None:
    assert parse_find(memoryview(find_bytes("m", "aa"))) == ("m", "aa")
    assert parse_found(memoryview(found_bytes([file(1), file(2)]))) == (file(1), file(2))


def test_the_shelf_offers_what_is_in_the_store_to_whom_the_owner_allows_and_forgets_what_is_removed(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        clock = SystemClock()
        mesh = LocalMesh(clock)
        key = PrivateKey(bytes(32))
        owner, friend, stranger = mesh.join(PeerId(key.public)), mesh.join(), mesh.join()
        dht = Dht(Ground(owner, owner, clock, key, lambda: Address(owner.peer)), Options(difficulty=1))
        shelf = ModelShelf(tmp_path, clock, dht, lambda peer: peer == friend.peer)
        shelf.register(owner)
        folder = tmp_path / "models" / "mine"
        folder.mkdir(parents=True)
        (folder / "w.gguf").write_bytes(b"weights" * 100_000)
        record = Record("mine", "gguf", "w.gguf", "somewhere", "ab" * 32, 700_000, None, 0.0)
        (folder / "record.json").write_text(json.dumps(asdict(record)))
        await shelf.look()
        body = find_bytes("mine", "")
        assert parse_found(await friend.call(owner.peer, FIND, body)) == (), "not in the catalogue, and not named"
        shelf.named = frozenset({"mine"})
        await shelf.look()
        for name, sha256 in (("mine", ""), ("another", "ab" * 32)):
            body = find_bytes(name, sha256)
            (found,) = parse_found(await friend.call(owner.peer, FIND, body))
            assert (found.name, found.size_bytes, found.file) == ("mine", 700_000, "w.gguf")
            assert parse_found(await stranger.call(owner.peer, FIND, body)) == ()
        assert len(await friend.call(owner.peer, "content.piece", piece_bytes(found.blob, 0))) > 100_000
        with pytest.raises(InvalidRequest, match="not shared with you"):
            await stranger.call(owner.peer, "content.piece", piece_bytes(found.blob, 0))
        Store(tmp_path).remove("mine")
        await shelf.look()
        assert parse_found(await friend.call(owner.peer, FIND, find_bytes("mine", ""))) == ()
        with pytest.raises(InvalidRequest, match="not shared"):
            await friend.call(owner.peer, "content.piece", piece_bytes(found.blob, 0))

    asyncio.run(scene())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_the_peers_fault(data: bytes) -> None:
    """Invariant: a typed value or PeerFault, never another exception."""
    for parser in (parse_find, parse_found):
        try:
            parser(memoryview(data))
        except PeerFault:
            continue


def test_a_file_that_is_not_what_was_promised_is_tried_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who promised the pinned hash and gave another file won every vote of two, and no pull ever ended well."""
    right = hashlib.sha256(b"right").hexdigest()
    offers = {bytes([number]) * 32: data for number, data in enumerate((b"right", b"wrong", b"wronger"))}

    async def fetched(config: NodeConfig, wish: Wish, job: Job) -> ModelFile:
        files = [ModelFile("m", blob, 5, right, "m.gguf") for blob in offers]
        if (found := choose([tuple(files)], wish)) is None:
            raise Unavailable("no peer found")
        job.path.write_bytes(offers[found.blob])
        return found

    monkeypatch.setattr(mesh_pull, "_fetch", fetched)
    job, model = Job(b"", tmp_path / "w", "m"), Wanted("m", right, 0, "m", None)
    config = NodeConfig(tmp_path)
    assert mesh_pull._fetch_right(config, model, job, no_progress).blob == bytes(32)
    assert job.path.read_bytes() == b"right"
    del offers[bytes(32)]
    with pytest.raises(BadWeights, match=f"expected {right}, found .*hold another file"):
        mesh_pull._fetch_right(config, model, job, no_progress)
    assert not job.path.exists()
