"""What `shoal doctor --net` makes of a mesh."""

from __future__ import annotations

from dataclasses import asdict, replace

from shoal.core.service import MeshView, PeerView
from shoal.mesh.nat.classify import ADVICE
from shoal.node.doctor import Check
from shoal.node.doctor_net import diagnose_net

WELL = MeshView(
    "m" * 52,
    "swarm",
    f"cone: 2 observers saw it; {ADVICE['cone']}",
    ("198.51.100.1:9",),
    peers=(PeerView("a" * 52, "connected", "quic", "direct"), PeerView("b" * 52, "connected", "quic", "relayed")),
)


def checks(view: MeshView) -> dict[str, Check]:
    return {check.name: check for check in diagnose_net(asdict(view))}


def test_all_is_well() -> None:
    found = checks(WELL)
    assert {check.status for check in found.values()} == {"ok"}
    assert found["NAT"].found == "cone: 2 observers saw it"
    assert found["NAT"].advice == ADVICE["cone"]
    assert found["peers"].found == "2 of 2 connected: 1 direct, 1 relayed"


def test_a_node_alone_is_told_how_to_join() -> None:
    (check,) = checks(MeshView("", "private")).values()
    assert check.status == "fail"
    assert "shoal join TICKET" in check.advice
    nobody = checks(replace(WELL, peers=()))["peers"]
    assert (nobody.status, "shoal ticket" in nobody.advice) == ("warn", True)


def test_a_strict_nat_wants_a_relay() -> None:
    strict = replace(WELL, nat=f"symmetric: 2 observers saw 2 addresses; {ADVICE['symmetric']}")
    assert [checks(strict)[name].status for name in ("NAT", "relays")] == ["warn", "warn"]
    assert checks(replace(strict, relays=("https://relay.test",)))["relays"].status == "ok"
    assert checks(replace(WELL, nat=""))["NAT"].found == "not known yet"
    assert checks(replace(WELL, addresses=()))["addresses"].status == "warn"


def test_peers_that_cannot_be_reached_are_named_with_their_steps() -> None:
    dead = tuple(
        PeerView(letter * 52, "waiting", failure="3 dials failed", steps=("no answer", "no relay"))
        for letter in "cdefghijklmn"
    )
    found = checks(replace(WELL, peers=dead))
    assert found["peers"].status == "fail"
    assert found["c" * 10].found == "3 dials failed; no answer; no relay"
    assert "shoal trace cccccccccc" in found["c" * 10].advice
    assert found["more"].found == "2 others cannot be reached"
