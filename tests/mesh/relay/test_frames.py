import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.core.errors import PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.mesh.relay import frames

KEY = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
NONCE = bytes(range(16))


def auth(nonce: bytes = NONCE) -> bytes:
    return b"\x01" + PUBLIC + b"\x40" + KEY.sign(blake3_digest(frames.PURPOSE, nonce))


def test_a_datagram_keeps_its_bytes_and_changes_its_name() -> None:
    for kind, head in ((4, b"\x02"), (5, b"\x02\x04\xb0")):
        frame = frames.parse(bytes([kind]) + PUBLIC + head + b"sealed")
        assert isinstance(frame, frames.Datagram)
        assert frame.to == PUBLIC
        assert frames.delivery(b"s" * 32, frame) == bytes([kind + 2]) + b"s" * 32 + head + b"sealed"


def test_pings_are_answered_with_their_own_bytes() -> None:
    ping = frames.parse(b"\x0912345678")
    assert isinstance(ping, frames.Ping)
    assert frames.pong(ping) == b"\x0a12345678"


def test_only_the_owner_of_the_key_can_answer_a_challenge() -> None:
    assert frames.parse_auth(auth(), NONCE) == PUBLIC
    for bad in (auth(b"x" * 16), auth()[:-1], b"\x02" + auth()[1:], "text", b""):
        with pytest.raises(PeerFault):
            frames.parse_auth(bad, NONCE)


def test_a_replayed_answer_fits_no_other_challenge() -> None:
    with pytest.raises(PeerFault):
        frames.parse_auth(auth(NONCE), bytes(16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        "text",
        b"\x04" + PUBLIC,
        b"\x05" + PUBLIC + b"\x00\x01",
        b"\x09short",
        b"\x06" + PUBLIC + b"x",
        b"\xff",
        b"\x04" + PUBLIC + bytes(frames.MAX_FRAME_BYTES),
    ],
)
def test_other_frames_are_the_peers_fault(data: bytes | str) -> None:
    with pytest.raises(PeerFault):
        frames.parse(data)


def test_random_bytes_are_a_frame_or_the_peers_fault_and_nothing_else() -> None:
    """The invariant: parse returns a typed frame no longer than its input, or raises PeerFault."""
    dice = random.Random(4)
    for _ in range(20_000):
        data = dice.randbytes(dice.choice((0, 1, 9, 33, 34, 35, 36, 99, 1300)))
        if data and dice.random() < 0.7:
            data = bytes([dice.choice((4, 5, 9, 10))]) + data[1:]
        try:
            frame = frames.parse(data)
        except PeerFault:
            continue
        size = len(frame.rest) + 33 if isinstance(frame, frames.Datagram) else len(frame.payload) + 1
        assert size == len(data)


def test_what_the_relay_says_is_encoded_as_published() -> None:
    assert frames.denies("no") == b"\x03\x02no"
    assert frames.gone(PUBLIC) == b"\x08" + PUBLIC
    assert frames.restarting(258, 1) == b"\x0c\x00\x00\x01\x02\x00\x00\x00\x01"
