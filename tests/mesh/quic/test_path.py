import pytest

from shoal.mesh.quic.path import Route, is_local, kind, selected, was_helped

RELAY = Route("0", "http://relay/", True, False, 20)
PUBLIC = Route("1", "203.0.113.9:4000", False, True, 9)


def test_the_selected_route_counts_else_the_first() -> None:
    assert selected((RELAY, PUBLIC)) is PUBLIC
    assert selected((RELAY,)) is RELAY
    assert selected(()) is None


def test_a_handshake_by_relay_was_helped_and_its_ip_path_is_punched() -> None:
    assert was_helped((RELAY, PUBLIC))
    assert kind(PUBLIC, is_helped=True) == "punched"
    assert kind(RELAY, is_helped=True) == "relayed"


def test_a_handshake_by_ip_is_direct() -> None:
    first = Route("0", "203.0.113.9:4000", False, True, 9)
    assert not was_helped((first,))
    assert kind(first, is_helped=False) == "direct"


@pytest.mark.parametrize("remote", ["192.168.1.7:99", "10.0.0.1:1", "[fe80::1%eth0]:5", "[::1]:5", "127.0.0.1:8"])
def test_no_nat_lies_inside_a_private_network(remote: str) -> None:
    assert is_local(remote)
    assert kind(Route("1", remote, False, True, 0), is_helped=True) == "direct"


@pytest.mark.parametrize("remote", ["8.8.8.8:1", "[2600::1]:5", "", "http://relay/", "nonsense"])
def test_what_is_no_private_address_is_not_local(remote: str) -> None:
    assert not is_local(remote)
