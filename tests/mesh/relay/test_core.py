import random

from shoal.mesh.bucket import Bucket
from shoal.mesh.relay import frames
from shoal.mesh.relay.config import RelayLimits
from shoal.mesh.relay.core import Close, Relay, Send

KEYS = [bytes([n]) * 32 for n in range(6)]


def packet(to: bytes, size: int = 10) -> frames.Datagram:
    frame = frames.parse(b"\x04" + to + b"\x00" + bytes(size - 1))
    assert isinstance(frame, frames.Datagram)
    return frame


def relay_of(limits: RelayLimits | None = None, clients: int = 2) -> Relay:
    relay = Relay(limits or RelayLimits())
    for n in range(clients):
        assert relay.joined(n, KEYS[n], speaks_v2=True, now=0.0) == []
    return relay


def test_a_packet_goes_to_the_owner_of_the_key_with_the_senders_name() -> None:
    relay = relay_of()
    assert relay.received(0, packet(KEYS[1]), 0.0) == [Send(1, b"\x06" + KEYS[0] + bytes(10))]
    assert (relay.stats().forwarded_frames, relay.stats().forwarded_bytes) == (1, 10)


def test_a_packet_for_nobody_is_dropped_and_counted() -> None:
    relay = relay_of()
    assert relay.received(0, packet(KEYS[5]), 0.0) == []
    assert relay.stats().dropped == {"receiver not here": 1}


def test_a_ping_is_answered() -> None:
    assert relay_of().received(0, frames.Ping(b"12345678"), 0.0) == [Send(0, b"\x0a12345678")]


def test_the_same_key_again_replaces_the_first_session_and_tells_it() -> None:
    relay = relay_of()
    actions = relay.joined(9, KEYS[0], speaks_v2=True, now=1.0)
    assert actions == [Send(0, b"\x0d\x01"), Close(0, "the same key has connected again")]
    assert relay.received(1, packet(KEYS[0]), 1.0) == [Send(9, b"\x06" + KEYS[1] + bytes(10))]
    assert relay.received(0, packet(KEYS[1]), 1.0) == []
    assert relay.left(0) == []
    assert relay.stats().clients == 2


def test_a_slow_receiver_costs_a_bounded_queue_and_others_nothing() -> None:
    relay = relay_of(RelayLimits(queue_frames=3), clients=3)
    sent = [relay.received(0, packet(KEYS[1]), 0.0) for _ in range(5)]
    assert [len(actions) for actions in sent] == [1, 1, 1, 0, 0]
    assert relay.received(0, packet(KEYS[2]), 0.0)
    assert relay.stats().dropped == {"receiver too slow": 2}
    relay.sent(1, 43)
    assert relay.received(0, packet(KEYS[1]), 0.0)


def test_a_queue_is_bounded_in_bytes_too() -> None:
    relay = relay_of(RelayLimits(queue_bytes=100))
    assert relay.received(0, packet(KEYS[1], 60), 0.0)
    assert not relay.received(0, packet(KEYS[1], 60), 0.0)


def test_who_sends_too_much_is_slowed_and_recovers() -> None:
    relay = relay_of(RelayLimits(bytes_per_s=100.0))
    assert relay.received(0, packet(KEYS[1], 200), 0.0)
    assert not relay.received(0, packet(KEYS[1], 50), 0.0)
    assert relay.received(0, packet(KEYS[1], 50), 0.5)
    assert relay.stats().dropped == {"too many bytes": 1}


def test_frames_are_limited_pings_included() -> None:
    relay = relay_of(RelayLimits(frames_per_s=1.0))
    answers = [relay.received(0, frames.Ping(bytes(8)), 0.0) for _ in range(4)]
    assert [len(answer) for answer in answers] == [1, 1, 0, 0]
    assert relay.received(0, frames.Ping(bytes(8)), 1.0)


def test_those_one_wrote_to_learn_that_one_is_gone() -> None:
    relay = relay_of(clients=3)
    relay.received(0, packet(KEYS[1]), 0.0)
    assert relay.left(0) == [Send(1, frames.gone(KEYS[0]))]
    assert relay.left(0) == []


def test_contacts_are_bounded_and_the_oldest_goes() -> None:
    relay = relay_of(RelayLimits(contacts=1), clients=3)
    relay.received(0, packet(KEYS[1]), 0.0)
    relay.received(0, packet(KEYS[2]), 0.0)
    assert relay.left(0) == [Send(2, frames.gone(KEYS[0]))]


def test_closing_tells_everybody() -> None:
    assert relay_of().closing(0, 5) == [Send(n, frames.restarting(0, 5)) for n in range(2)]


def test_a_bucket_is_fair_over_time_and_time_never_runs_backwards() -> None:
    bucket = Bucket(10.0, 20.0, since=0.0)
    assert bucket.take(20, 0.0)
    assert not bucket.take(1, 0.0)
    assert not bucket.take(1, -100.0)
    assert bucket.take(10, 1.0)
    assert not bucket.take(21, 1000.0)


def test_any_history_keeps_the_books() -> None:
    """The invariant: what waits is what was handed out and not yet sent, within its limits, for live sessions only."""
    dice = random.Random(1)
    limits = RelayLimits(queue_frames=4, queue_bytes=400, contacts=2, bytes_per_s=500, frames_per_s=50)
    for _ in range(200):
        relay, waiting, owner, now = Relay(limits), dict[int, list[bytes]](), dict[bytes, int](), 0.0
        for step in range(120):
            now += dice.random() / 20
            move = dice.random()
            live = sorted(owner.values())
            if move < 0.15 or not live:
                key = dice.choice(KEYS)
                if key in owner:
                    waiting.pop(owner[key])
                owner[key] = step
                waiting[step] = []
                actions = relay.joined(step, key, dice.random() < 0.5, now)
                assert all(isinstance(a, Close) or a.to not in waiting for a in actions)
                continue
            session = dice.choice(live)
            if move < 0.25:
                owner = {key: other for key, other in owner.items() if other != session}
                waiting.pop(session)
                actions = relay.left(session)
            elif move < 0.5 and waiting[session]:
                relay.sent(session, len(waiting[session].pop(0)))
                continue
            else:
                actions = relay.received(session, packet(dice.choice(KEYS), dice.randint(1, 150)), now)
            for action in actions:
                assert isinstance(action, Send)
                waiting[action.to].append(action.data)
            for queue in waiting.values():
                assert len(queue) <= limits.queue_frames
                assert sum(map(len, queue)) <= limits.queue_bytes
            assert relay.stats().clients == len(owner)


def test_the_queues_of_all_slow_receivers_are_bounded_together() -> None:
    """Two thousand clients that read nothing, 8 MB each, were 16 GB."""
    relay = relay_of(RelayLimits(all_queues_bytes=1000), clients=4)
    sent = [relay.received(0, packet(KEYS[to], 300), 0.0) for to in (1, 2, 3, 1, 2)]
    assert [len(actions) for actions in sent] == [1, 1, 1, 0, 0]
    assert relay.stats().dropped == {"receivers too slow, all together": 2}
    relay.sent(1, 333)
    assert relay.received(0, packet(KEYS[3], 300), 0.0)
    relay.left(2)
    relay.joined(9, KEYS[3], speaks_v2=False, now=0.0)  # what waited for a session that is gone is gone
    for to in (1, 3, 1):
        assert relay.received(0, packet(KEYS[to], 290), 0.0)


def test_who_sends_too_many_frames_is_not_listened_to_for_a_moment() -> None:
    relay = relay_of(RelayLimits(frames_per_s=10))
    for _ in range(20):
        relay.received(0, frames.Ping(bytes(8)), 0.0)
        assert relay.pause_s(1) == 0
    relay.received(0, frames.Ping(bytes(8)), 0.0)
    assert relay.pause_s(0) == 10
