"""`doctor --net --ticket`: networks that are made up, and this one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.mesh.nat import Nat
from shoal.node.doctor import can_serve
from shoal.node.net_doctor import Answered, Network, Reached, diagnose_network

CONE = Nat("cone", ("1.2.3.4:5",), False, "2 observers saw 1.2.3.4:5")
PEER = Reached("abcdefghij", "direct", "quic", 0.02, -0.5)
GOOD = Network(
    CONE,
    True,
    (PEER,),
    (Answered("https://relay", "200 in 20 ms", True),),
    (Answered("ask the router", "1.2.3.4:5 for 3600 s", True),),
    (Answered("eth0", "works", True),),
)


def test_a_good_network_has_nothing_to_change() -> None:
    checks = diagnose_network(GOOD)
    assert {check.status for check in checks} == {"ok"}
    assert not any(check.advice for check in checks)
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize(
    ("network", "name", "status"),
    [
        ({"peers": ()}, "peers", "warn"),
        ({"peers": (replace(PEER, failure="no answer"),)}, "peer abcdefghij", "fail"),
        ({"peers": (PEER, Reached("other", failure="no answer"))}, "peer other", "warn"),
        ({"peers": (replace(PEER, path="relayed"),)}, "UDP", "warn"),
        ({"peers": (replace(PEER, carrier="tcp"),)}, "UDP", "warn"),
        ({"nat": None}, "UDP", "warn"),
        ({"nat": replace(CONE, kind="symmetric")}, "NAT", "warn"),
        ({"nat": replace(CONE, kind="unknown")}, "NAT", "warn"),
        ({"has_ipv6": False}, "IPv6", "warn"),
        ({"mapping": ()}, "port mapping", "warn"),
        ({"mapping": (), "nat": replace(CONE, kind="none")}, "port mapping", "ok"),
        ({"mapping": (Answered("NAT-PMP", "no answer", False), GOOD.mapping[0])}, "port mapping", "ok"),
        ({"relays": ()}, "relays", "warn"),
        ({"relays": (Answered("http://x", "refused", False),)}, "relay http://x", "warn"),
        ({"multicast": (Answered("eth0", "not heard", False),)}, "multicast", "warn"),
        ({"peers": (replace(PEER, skew_s=120.0),)}, "clock", "warn"),
        ({"peers": (replace(PEER, skew_s=None),)}, "clock", "warn"),
    ],
)
def test_each_trouble_is_seen_and_comes_with_advice(network: dict[str, Any], name: str, status: str) -> None:
    checks = diagnose_network(replace(GOOD, **network))
    (check,) = [check for check in checks if check.name == name]
    assert check.status == status
    assert bool(check.advice) == (status != "ok")
    assert can_serve(checks) == (status != "fail")
