"""Whom a node asks, and how it takes what people write for a peer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, InvalidRequest
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.gossip import Load, Member
from shoal.mesh.gossip.claims import Statement
from shoal.mesh.gossip.roster import Status
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard.book import AddressBook
from shoal.mesh.ticket import Ticket
from shoal.node.cli import main
from shoal.node.mesh_home import MeshHome, read_tickets
from shoal.node.mesh_parts import Place, mesh_parts
from shoal.node.meshing import UNSTEADY_QUEUE, Mesh, _changing, _running, _seen


def member(status: Status, queue: int = 0) -> Member:
    peer = PeerId(PrivateKey.generate().public)
    return Member(Statement(Address(peer), 1, load=Load(queue=queue)), status, 0.0)


def parts(*members: Member, usable: tuple[Member, ...] = (), lost: tuple[Member, ...] = ()) -> Any:
    names = {one.peer for one in usable}
    gossip = SimpleNamespace(members=lambda: members, is_usable=lambda peer: peer in names)
    gone = {one.peer for one in lost}
    switchboard = SimpleNamespace(
        snapshot=tuple, is_doubtful=lambda peer: peer in gone, tells_its_end=lambda peer: peer not in gone
    )
    return SimpleNamespace(me=members[0].peer, gossip=gossip, switchboard=switchboard)


def test_who_comes_and_goes_is_asked_last_and_who_went_is_not_asked() -> None:
    me, steady, shaky, suspect = member("alive"), member("alive", 1), member("alive", 2), member("suspect")
    dead, left, lost = member("dead"), member("left"), member("alive")
    seen = _seen(parts(me, steady, shaky, suspect, dead, left, lost, usable=(me, steady, lost), lost=(lost,)))
    assert {sighting.peer: sighting.waiting for sighting in seen} == {
        steady.peer: 1,
        shaky.peer: 2 + UNSTEADY_QUEUE,
        suspect.peer: UNSTEADY_QUEUE,
        lost.peer: 0,
    }
    assert [sighting.peer for sighting in seen if sighting.is_lost] == [lost.peer]
    assert all(sighting.tells_its_end is not sighting.is_lost for sighting in seen)


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


def test_a_ticket_may_be_in_a_file_so_that_no_list_of_processes_shows_it(tmp_path: Path) -> None:
    ticket = Ticket((Address(PeerId(PrivateKey.generate().public)),), secret=bytes(16))
    (tmp_path / "t").write_text(f"{ticket}\n")
    assert read_tickets([f"@{tmp_path}/t", str(ticket)], 0.0) == [ticket, ticket]
    with pytest.raises(BadConfig, match="none cannot be read: No such file"):
        read_tickets([f"@{tmp_path}/none"], 0.0)


def test_the_word_on_models_changes_with_them_and_says_nothing_to_who_guesses_names() -> None:
    key = PrivateKey.generate()
    told = _changing(key, ["a", "b"])
    assert told == _changing(key, ["b", "a"])
    assert told not in (_changing(key, ["a"]), _changing(key, ["a,b"]), _changing(PrivateKey.generate(), ["a", "b"]))


def test_an_address_this_machine_lacks_is_said_under_its_own_name() -> None:
    async def scene(host: str) -> None:
        async with mesh_parts(Place(PrivateKey.generate(), host, 0), SystemClock()):
            pass

    with pytest.raises(BadConfig, match=r"mesh_host: this machine cannot listen at 203.0.113.9 .*127.0.0.1.*0.0.0.0"):
        asyncio.run(scene("203.0.113.9"))


def test_a_relay_that_does_not_answer_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with mesh_parts(Place(PrivateKey.generate(), "127.0.0.1", 0, ("http://127.0.0.1:9/",)), SystemClock()):
            pass

    asyncio.run(scene())
    assert "no relay answers (http://127.0.0.1:9/)" in caplog.text


def test_a_peer_nobody_heard_of_is_not_dialled(tmp_path: Path) -> None:
    async def nothing(peer: PeerId) -> None:
        return None

    me, stranger = member("alive"), PeerId(PrivateKey.generate().public)
    found = parts(me)
    found.switchboard.book = AddressBook()
    found.dht = SimpleNamespace(resolve=nothing)
    view = asyncio.run(Mesh(None, SystemClock(), found, None, None, (), None).ping(str(stranger)))  # type: ignore[arg-type]
    assert (view.peer.state, view.rtts_s) == ("unknown", ())
    assert "the directory has no address" in view.failure


def test_a_loop_that_swallows_a_cancellation_does_not_keep_the_node_from_stopping() -> None:
    """As `asyncio.wait_for` of Python 3.11 does where its result comes at the same moment."""
    cancelled = []

    async def stubborn() -> None:
        while len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)

    async def stop() -> None:
        async with _running([stubborn()]):
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(stop(), 10.0))
    assert len(cancelled) == 2
