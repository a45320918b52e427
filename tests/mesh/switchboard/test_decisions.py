"""The switchboard's decisions as plain functions: book, choice, records, gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

from shoal.mesh.address import Address
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard import record as records
from shoal.mesh.switchboard.book import AddressBook
from shoal.mesh.switchboard.choice import Candidate, best
from shoal.mesh.switchboard.dialing import in_order, is_near
from shoal.mesh.switchboard.gate import Gate, Limits, site_of
from shoal.mesh.switchboard.record import Record, Step

SMALL, LARGE = PeerId(bytes(32)), PeerId(bytes([255]) * 32)
INFO = LinkInfo("tcp", "direct", "192.0.2.1:5", 0.0, True)


@dataclass(frozen=True)
class Ends:
    """A link as far as choosing goes."""

    peer: PeerId


def candidates(other: PeerId, *infos: LinkInfo) -> list[Candidate]:
    return [Candidate(Ends(other), info) for info in infos]  # type: ignore[arg-type]


def test_direct_beats_punched_beats_relayed_and_tcp_beats_quic() -> None:
    infos = [
        INFO,
        replace(INFO, carrier="quic"),
        replace(INFO, carrier="quic", path="punched"),
        replace(INFO, carrier="quic", path="relayed"),
    ]
    for count in range(1, len(infos) + 1):
        for order in permutations(infos[-count:]):
            assert best(candidates(LARGE, *order), SMALL).info == infos[-count]


def test_both_sides_of_two_simultaneous_dials_name_the_same_link() -> None:
    mine, theirs = replace(INFO, is_dialer=True, since=1.0), replace(INFO, is_dialer=False, since=2.0)
    assert best(candidates(LARGE, mine, theirs), SMALL).info.is_dialer
    assert not best(candidates(SMALL, mine, theirs), LARGE).info.is_dialer  # the same link seen from its other end


def test_only_the_chooser_prefers_what_it_measured_to_be_clearly_faster_and_never_a_relay() -> None:
    slow, fast = replace(INFO, rtt_s=0.2), replace(INFO, carrier="quic", rtt_s=0.02)
    relay = replace(INFO, path="relayed", rtt_s=0.001)
    assert best(candidates(LARGE, slow, fast, relay), SMALL).info == fast
    assert best(candidates(SMALL, slow, fast, relay), LARGE).info == slow
    assert best(candidates(LARGE, slow, replace(fast, rtt_s=0.15)), SMALL).info == slow


@dataclass(frozen=True)
class Named:
    """A carrier as far as their order goes."""

    name: str


def test_tcp_goes_first_to_a_machine_near_by_only() -> None:
    def near(theirs: str, *own: str) -> bool:
        return is_near(Address(LARGE, tcp=tuple(theirs.split())), Address(SMALL, tcp=own))

    assert near("192.168.1.7:1", "192.168.1.9:2", "127.0.0.1:2")
    assert near("127.0.0.1:1", "127.0.0.1:2")
    assert near("[fd00::1]:1", "[fd00::2]:2")
    assert not near("192.168.2.7:1", "192.168.1.9:2")
    assert not near("192.168.1.7:1 127.0.0.1:1", "10.0.0.9:2", "127.0.0.1:2")  # everybody has a loopback
    assert not near("8.8.8.8:1", "8.8.8.9:1")
    assert not near("nonsense", "127.0.0.1:2")
    carriers = [Named("quic"), Named("tcp")]
    assert [item.name for item in in_order(carriers, True)] == ["tcp", "quic"]  # type: ignore[arg-type]
    assert in_order(carriers, False) == carriers  # type: ignore[arg-type]


def test_the_wait_doubles_to_its_bound_and_news_ends_it() -> None:
    record, waits = Record(), []
    for _ in range(12):
        record = records.failed(record, (Step("tcp: refused", 0.1),), 100.0, 0.5)
        waits.append(record.retry_at - 100.0)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == records.MAX_WAIT_S
    assert records.failed(record, (), 0, 0.0).retry_at < records.failed(record, (), 0, 0.99).retry_at
    assert records.renewed(record).phase == "idle"
    assert records.connected(record, 5.0).failures == 0
    assert records.ended(records.connected(record, 5.0), "gone", 6.0).last_end == "gone"


def test_the_gate_counts_links_and_pace() -> None:
    gate = Gate(Limits(links=10, links_per_peer=2, inbound_per_s=1.0, inbound_burst=3), 0.0)
    assert [bool(gate.refusal(0, 0, 0.0)) for _ in range(4)] == [False, False, False, True]
    assert gate.refusal(0, 0, 1.5) == ""
    assert "2 are the most" in gate.refusal(0, 2, 100.0)
    assert "10 links" in gate.refusal(10, 0, 100.0)


def test_the_book_puts_what_worked_first_forgets_the_old_and_stays_bounded() -> None:
    book = AddressBook(max_peers=3, max_age_s=10)
    peer = SMALL
    assert book.add(Address(peer, tcp=("192.0.2.9:1",)), "dht", 0.0)
    assert not book.add(Address(peer, tcp=("192.0.2.9:1",)), "lan", 1.0)
    book.worked(peer, INFO, 2.0)
    for number in range(20):
        book.add(Address(peer, tcp=(f"198.51.100.1:{number + 1}",)), "liar", 2.0)
    assert book.address(peer, 3.0).tcp[0] == INFO.remote
    assert book.address(peer, 13.0).is_empty
    for number in range(5):
        book.add(Address(PeerId(bytes([number]) * 32)), "dht", 20.0)
    assert len(book) == 3


def test_one_site_fills_neither_the_places_nor_the_pace() -> None:
    gate = Gate(Limits(links_per_site=3, inbound_per_s=2.0, inbound_burst=8), 0.0)

    def link(remote: str, is_dialer: bool = False) -> LinkInfo:
        return LinkInfo("tcp", "direct", remote, 0.0, is_dialer)

    assert [bool(gate.refusal_of_site("1.2.3.4", [], 0.0)) for _ in range(6)] == [False] * 4 + [True] * 2
    assert gate.refusal_of_site("5.6.7.8", [], 0.0) == ""
    assert "1 new links a second" in gate.refusal_of_site("1.2.3.4", [], 0.5)
    there = [link(f"[2001:db8::{number}]:9") for number in range(3)]
    assert "3 links" in gate.refusal_of_site(site_of(link("[2001:db8::ffff]:7")), there, 100.0)
    assert gate.refusal_of_site(site_of(link("[2001:db8:1::1]:7")), there, 100.0) == ""
    ours = [link("9.9.9.9:1", is_dialer=True)] * 9
    assert gate.refusal_of_site("9.9.9.9", ours, 100.0) == ""
    assert site_of(link("[::ffff:9.9.9.9]:1")) == "9.9.9.9"
    assert site_of(link("https://relay.example/")) == "https://relay.example/"
