"""Whom a node asks, and how it takes what people write for a peer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.gossip import Load, Member
from shoal.mesh.gossip.claims import Statement
from shoal.mesh.gossip.roster import Status
from shoal.mesh.peer_id import PeerId
from shoal.node.cli import main
from shoal.node.mesh_home import MeshHome
from shoal.node.meshing import UNSTEADY_QUEUE, Mesh, _seen


def member(status: Status, queue: int = 0) -> Member:
    peer = PeerId(PrivateKey.generate().public)
    return Member(Statement(Address(peer), 1, load=Load(queue=queue)), status, 0.0)


def parts(*members: Member, usable: tuple[Member, ...] = (), lost: tuple[Member, ...] = ()) -> Any:
    names = {one.peer for one in usable}
    gossip = SimpleNamespace(members=lambda: members, is_usable=lambda peer: peer in names)
    gone = {one.peer for one in lost}
    switchboard = SimpleNamespace(snapshot=tuple, is_doubtful=lambda peer: peer in gone)
    return SimpleNamespace(me=members[0].peer, gossip=gossip, switchboard=switchboard)


def test_who_comes_and_goes_is_asked_last_and_who_went_is_not_asked() -> None:
    me, steady, shaky, suspect = member("alive"), member("alive", 1), member("alive", 2), member("suspect")
    dead, left, lost = member("dead"), member("left"), member("alive")
    seen = _seen(parts(me, steady, shaky, suspect, dead, left, lost, usable=(me, steady, lost), lost=(lost,)))
    assert {sighting.peer: sighting.waiting for sighting in seen} == {
        steady.peer: 1,
        shaky.peer: 2 + UNSTEADY_QUEUE,
        suspect.peer: UNSTEADY_QUEUE,
        lost.peer: UNSTEADY_QUEUE,
    }


def test_a_peer_is_known_by_the_beginning_of_its_id() -> None:
    me, other = member("alive"), member("alive")
    mesh = SimpleNamespace(parts=parts(me, other))

    def known(text: str) -> PeerId:
        return Mesh._known(cast(Mesh, mesh), text)

    assert known(str(other.peer)) == other.peer
    stranger = PeerId(PrivateKey.generate().public)
    assert known(str(stranger)) == stranger
    with pytest.raises(InvalidRequest, match="no peer known here begins with '!'; `shoal peers`"):
        known("!")
    with pytest.raises(InvalidRequest, match="2 peers begin with ''"):
        known("")


def test_one_node_at_a_time_has_a_home(tmp_path: Path) -> None:
    with MeshHome(tmp_path).claimed(), pytest.raises(BadConfig, match="another node runs with"):
        MeshHome(tmp_path).claimed().__enter__()
    with MeshHome(tmp_path).claimed():
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["join", "shoal1abc"], "TICKET: this ticket is cut off"),
        (["up", "--ticket", "x"], "tickets: expected a ticket, which begins with shoal1, found 'x'"),
        (["up", "--serve-peer", "abc"], "serve_peers: expected a peer id"),
        (["up", "--upstream", "abc"], "--upstream: expected NAME=VALUE, found 'abc'"),
    ],
)
def test_what_is_wrong_about_peers_is_wrong_usage(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main([*arguments, "--model", "none", "--port", "0"]) == 2
    assert words in capsys.readouterr().err


def test_who_counts_as_dead_and_has_a_link_again_is_told() -> None:
    me, dead, linked, alive, left = member("alive"), member("dead"), member("dead"), member("alive"), member("left")
    found = parts(me, dead, linked, alive, left)
    members = {one.peer: one for one in (me, dead, linked, alive, left)}
    found.gossip.member = members.get
    found.switchboard.connected = lambda: [one.peer for one in members.values() if one is not dead]
    assert Mesh._risen(cast(Mesh, SimpleNamespace(parts=found))) == [linked.peer]
