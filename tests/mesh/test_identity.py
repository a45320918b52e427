"""The identity's file: made once, private, never silently replaced; rotation is checked by both keys."""

from __future__ import annotations

import dataclasses
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shoal.core.encoding import encode
from shoal.core.errors import BadConfig, PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.identity import Rotation, _signed, load_identity, parse_rotations, rotate, successor
from shoal.mesh.peer_id import PeerId


def key(number: int) -> PrivateKey:
    return PrivateKey(bytes([number]) * 32)


def test_first_start_makes_a_private_file_and_later_starts_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "home"
    first = load_identity(folder)
    assert load_identity(folder) == first
    assert stat.S_IMODE((folder / "identity.key").stat().st_mode) == 0o600
    assert [item.name for item in folder.iterdir()] == ["identity.key"]
    load_identity(tmp_path / "mesh")
    assert stat.S_IMODE((tmp_path / "mesh").stat().st_mode) == 0o700


def test_many_first_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        peers = set(pool.map(lambda _: load_identity(tmp_path).peer, range(32)))
    assert len(peers) == 1


def test_a_backup_is_a_copy(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "a")
    (tmp_path / "b").mkdir()
    copy = tmp_path / "b" / "identity.key"
    copy.write_bytes((tmp_path / "a" / "identity.key").read_bytes())
    with pytest.raises(BadConfig, match="chmod 600"):
        load_identity(tmp_path / "b")
    copy.chmod(0o600)
    assert load_identity(tmp_path / "b").peer == first.peer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "three lines"),
        (lambda text: text[:40], "three lines"),
        (lambda text: text.replace("v1", "v2"), "first"),
        (lambda text: text.replace("\n", "\nzz", 1), "64 hexadecimal"),
        (lambda text: text.splitlines()[0] + "\n" + "00" * 32 + "\n" + text.splitlines()[2] + "\n", "third line"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, change, message: str) -> None:
    load_identity(tmp_path)
    path = tmp_path / "identity.key"
    path.write_text(damaged := change(path.read_text()))
    with pytest.raises(BadConfig, match=message):
        load_identity(tmp_path)
    assert path.read_text() == damaged


def test_rotation_keeps_the_old_key_and_peers_follow_it(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    second = rotate(tmp_path, 1000.7)
    third = rotate(tmp_path, 2000)
    assert load_identity(tmp_path) == third
    assert len({first.peer, second.peer, third.peer}) == 3
    received = parse_rotations(encode(third.rotations))
    assert successor(first.peer, received) == third.peer
    assert successor(second.peer, received) == third.peer
    assert successor(third.peer, received) == third.peer
    kept = tmp_path / f"identity.{first.peer.short}.key"
    assert first.key.seed.hex() in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_statement_lacking_either_signature_is_refused() -> None:
    good = _signed(key(1), key(2), 5)
    assert good.is_valid
    changes = [{"time": 6}, {"new": key(3).public}, {"by_old": good.by_new}, {"by_new": bytes(64)}]
    for change in changes:
        bad = dataclasses.replace(good, **change)
        with pytest.raises(PeerFault, match="not signed"):
            parse_rotations(encode([bad]))
        assert successor(PeerId(key(1).public), [bad]) == PeerId(key(1).public)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", encode(5), encode([{}]), encode([[1]] * 3), encode([{"old": 1}]), bytes(70_000)]
)
def test_malformed_statements_are_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        parse_rotations(data)


def test_two_successors_of_one_key_are_both_disbelieved_and_circles_end() -> None:
    one = PeerId(key(1).public)
    assert successor(one, [_signed(key(1), key(2), 5), _signed(key(1), key(3), 5)]) == one
    circle: list[Rotation] = [_signed(key(1), key(2), 5), _signed(key(2), key(1), 6)]
    assert successor(one, circle) == one
