import pytest

from shoal.mesh.fakes import numbered
from shoal.mesh.nat.classify import ADVICE, RELAYED, Observation, classify

LOCAL = ("192.168.1.5:4000",)


def seen(*addresses: str | None, why: str = RELAYED) -> tuple[Observation, ...]:
    return tuple(Observation(numbered(n), address, "" if address else why) for n, address in enumerate(addresses))


@pytest.mark.parametrize(
    ("addresses", "kind", "external"),
    [
        (("44.1.1.1:9", "44.1.1.1:9"), "cone", ("44.1.1.1:9",)),
        (("44.1.1.1:9", "44.1.1.1:8"), "symmetric", ()),
        (("44.1.1.1:9", "44.1.1.2:9"), "symmetric", ()),
        (("44.1.1.1:9",), "unseen", ("44.1.1.1:9",)),
        (("192.168.1.5:4000",), "none", ("192.168.1.5:4000",)),
        ((None, None), "blocked", ()),
        ((None, "44.1.1.1:9"), "unseen", ("44.1.1.1:9",)),
        (("[2600::1]:9", "44.1.1.1:9", "44.1.1.1:9"), "cone", ("44.1.1.1:9", "[2600::1]:9")),
        (("44.1.1.1:9", "44.1.1.1:9", "44.6.6.6:1"), "symmetric", ("44.1.1.1:9",)),
    ],
)
def test_kinds(addresses: tuple[str | None, ...], kind: str, external: tuple[str, ...]) -> None:
    nat = classify(seen(*addresses), LOCAL)
    assert (nat.kind, nat.external) == (kind, external)
    assert nat.why
    assert nat.advice == ADVICE[nat.kind]


def test_nobody_asked_and_nobody_answering_are_not_blocked() -> None:
    assert classify((), LOCAL).kind == "unknown"
    assert classify(seen(None, why="timed out"), LOCAL).kind == "unknown"


def test_a_liar_among_three_is_never_believed() -> None:
    nat = classify(seen("44.9.9.9:1", "44.1.1.1:9", "44.1.1.1:9"), LOCAL)
    assert "44.9.9.9:1" not in nat.external


def test_what_nobody_outside_can_have_seen_counts_for_nothing() -> None:
    assert classify(seen("127.0.0.1:5", "junk", "[fe80::1]:5"), LOCAL).kind == "unknown"
