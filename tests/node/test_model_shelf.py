"""Models found by name or hash among peers, and what is believed of the answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import BadConfig, PeerFault
from shoal.models.catalogue import CATALOGUE
from shoal.node.mesh_pull import Wanted, _plain, choose, wanted
from shoal.node.model_shelf import ModelFile, find_bytes, found_bytes, parse_find, parse_found


def file(blob: int, sha256: str = "aa") -> ModelFile:
    return ModelFile("m", bytes([blob]) * 32, 10, sha256, "m.gguf")


def test_without_a_pinned_hash_the_file_most_peers_have_is_taken_with_one_only_that_file() -> None:
    answers = [(file(1),), (file(2),), (file(2), file(3, "bb"))]
    assert choose(answers, Wanted("m", "", "mesh:m", None)) == file(2)
    assert choose(answers, Wanted("m", "bb", "m", None)) == file(3, "bb")
    assert choose(answers, Wanted("m", "cc", "m", None)) is None
    assert choose([], Wanted("m", "", "mesh:m", None)) is None


def test_a_catalogue_name_is_pinned_any_other_name_is_plain() -> None:
    entry = CATALOGUE[0]
    assert wanted(entry.aliases[0]) == Wanted(entry.name, entry.source.member_sha256, entry.name, entry.licence)
    assert wanted("Mine") == Wanted("mine", "", "mesh:mine", None)
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


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_the_peers_fault(data: bytes) -> None:
    """Invariant: a typed value or PeerFault, never another exception."""
    for parser in (parse_find, parse_found):
        try:
            parser(memoryview(data))
        except PeerFault:
            continue
