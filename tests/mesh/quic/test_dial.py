import pytest

from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic.dial import STAGGER_S, Attempt, explain, is_endpoint, plan

PEER = PeerId(bytes(32))


def test_every_relay_is_an_attempt_of_its_own_later_than_the_one_before() -> None:
    tried = plan(Address(PEER, ("1.2.3.4:5",), (), ("http://a/", "http://b/")), uses_relays=True)
    assert tried.attempts == (
        Attempt(("1.2.3.4:5",), "http://a/", 0.0),
        Attempt(("1.2.3.4:5",), "http://b/", STAGGER_S),
    )


def test_hints_that_mean_nothing_are_refused_by_name() -> None:
    tried = plan(Address(PEER, ("1.2.3.4", "[::1]:7"), (), ("ftp://x", "http://a b")), uses_relays=True)
    assert tried.attempts == (Attempt(("[::1]:7",), None, 0.0),)
    assert [line.split(":")[0] for line in tried.refused] == ["udp 1.2.3.4", "relay ftp", "relay http"]


def test_a_node_without_relays_says_so() -> None:
    tried = plan(Address(PEER, (), (), ("http://a/",)), uses_relays=False)
    assert not tried.attempts
    assert "uses no relays" in tried.refused[0]


@pytest.mark.parametrize("text", ["1.2.3.4:5", "[::1]:65535", "[2600::9]:1"])
def test_endpoints(text: str) -> None:
    assert is_endpoint(text)


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:5", "[1.2.3.4]:5", "host:5", "1.2.3.4:٣"]
)
def test_not_endpoints(text: str) -> None:
    assert not is_endpoint(text)


def test_a_failure_lists_every_endpoint_and_what_to_do() -> None:
    tried = plan(Address(PEER, ("1.2.3.4:5",), (), ("http://a/",)), uses_relays=True)
    steps = explain(tried, False, 3.0, ("refused",))
    assert steps[0] == "udp 1.2.3.4:5: no answer within 3 s"
    assert steps[1].startswith("relay http://a/: no answer")
    assert "refused" in steps[2]
    assert "no relay" in steps[3]
