import asyncio

from shoal.crypto.keys import PrivateKey
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.quic.failover import MISSES, RETURN_S, Patience
from shoal.mesh.relay import RelayConfig, RelayServer


def test_a_home_that_misses_too_often_rests_and_comes_back() -> None:
    patience = Patience(("x", "y"))
    answers = [patience.judge("x", False, float(now)) for now in range(MISSES)]
    assert answers == [(None, ())] * (MISSES - 1) + [("x", ())]
    assert patience.judge("y", True, 5.0) == (None, ())
    assert patience.judge("y", True, MISSES - 1 + RETURN_S) == (None, ("x",))


def test_one_good_answer_forgives() -> None:
    patience = Patience(("x", "y"))
    for now in range(20):
        assert patience.judge("x", now % MISSES == 0, float(now)) == (None, ())


def test_the_last_relay_is_never_taken_away() -> None:
    only = Patience(("x",))
    assert all(only.judge("x", False, float(now)) == (None, ()) for now in range(20))
    both = Patience(("x", "y"))
    taken = [both.judge("x" if now < MISSES else "y", False, float(now))[0] for now in range(20)]
    assert [item for item in taken if item] == ["x"]


def test_without_a_home_there_is_nothing_to_take() -> None:
    patience = Patience(("x", "y"))
    assert all(patience.judge(None, False, float(now)) == (None, ()) for now in range(20))


def test_a_node_moves_to_the_other_relay_when_its_own_dies() -> None:
    async def work() -> None:
        relays = {relay.url: relay for relay in [await RelayServer.start(RelayConfig("127.0.0.1", 0)) for _ in "12"]}
        node = await QuicCarrier.start(QuicConfig(PrivateKey(b"\5" * 32), "127.0.0.1:0", tuple(relays)))
        home = node.home_relay
        assert home in relays
        await relays.pop(home).close()
        async with asyncio.timeout(20):
            while node.home_relay in (home, None) or not await node.wait_online(0.1):
                await asyncio.sleep(0.02)
        assert node.home_relay in relays
        await node.close()
        await next(iter(relays.values())).close()

    asyncio.run(work())
