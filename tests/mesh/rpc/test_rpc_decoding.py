"""Fuzz. The invariant: any bytes become typed values or PeerFault, nothing else, in bounded memory and time, and the
same however the bytes are cut.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_pairs import ALICE, BOB

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault, ShoalError
from shoal.core.text import plain
from shoal.mesh.rpc import wire
from shoal.mesh.rpc.failures import failure_bytes, parse_failure
from shoal.mesh.rpc.flow import Inbound, Outbound
from shoal.mesh.rpc.frames import FrameReader
from shoal.mesh.rpc.hello import MAX_HELLO, Handshake, Hello, parse_hello, parse_proof

LIMIT = 300
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=LIMIT)), max_size=8)


def encoded(frames: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(wire.HEADER.pack(len(body), kind, call) + body for kind, call, body in frames)


def read(pieces: list[bytes], limit: int = LIMIT) -> tuple[list[tuple[int, int, bytes]], bool]:
    """The frames, and whether the bytes ended in a fault."""
    reader, frames = FrameReader(limit), list[tuple[int, int, bytes]]()
    try:
        for piece in pieces:
            frames += [(kind, call, bytes(body)) for kind, call, body in reader.feed(piece)]
    except PeerFault:
        return frames, True
    return frames, False


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_come_back_however_they_are_cut(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data, pieces, at, turn = encoded(frames), [], 0, 0
    while at < len(data):
        pieces.append(data[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    assert read([data]) == read(pieces) == read([data[i : i + 1] for i in range(len(data))]) == (frames, False)


@given(st.binary(max_size=400))
def test_any_bytes_give_the_same_fed_whole_and_byte_by_byte(data: bytes) -> None:
    by_byte, fault = read([data[i : i + 1] for i in range(len(data))])
    whole, whole_fault = read([data])
    assert whole_fault == fault
    assert by_byte[: len(whole)] == whole  # a fault ends the link: the frames of the same feed go with it
    assert fault or by_byte == whole


def test_a_payload_that_is_announced_costs_nothing_until_it_comes() -> None:
    readers = [FrameReader(2**28) for _ in range(50)]
    for reader in readers:
        assert reader.feed(wire.HEADER.pack(2**28, wire.CALL, 1) + b"x") == []
        assert reader.pending == 2**28
    resident = Path("/proc/self/statm").read_text().split()[1]
    assert int(resident) * 4096 < 50 * 2**28 / 4


def test_byte_by_byte_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        reader, data = FrameReader(2**20), wire.HEADER.pack(size, 1, 1) + bytes(size)
        began = time.process_time()
        for i in range(len(data)):
            reader.feed(data[i : i + 1])
        return time.process_time() - began

    assert seconds(160_000) < 40 * seconds(20_000) + 0.05  # 8 times the bytes; quadratic would be 64 times


@pytest.mark.parametrize(
    "parse",
    [wire.parse_ask, wire.parse_data, wire.parse_count, wire.parse_nothing, parse_hello, parse_proof, parse_failure],
)  # fmt: skip
@given(data=st.binary(max_size=200))
def test_every_parser_gives_a_value_or_a_fault(parse: object, data: bytes) -> None:
    try:
        value = parse(data)  # type: ignore[operator]
    except PeerFault:
        return
    except ShoalError:
        assert parse is parse_proof  # a refusal is the other side's word that we do not fit
        return
    assert value is None or isinstance(value, wire.Ask | tuple | int | Hello | bytes | ShoalError)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20) | st.binary(max_size=40)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("pvafncswxktdm"), inner, max_size=9),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
@settings(max_examples=300)
def test_well_formed_values_of_the_wrong_shape_are_faults_too(value: object) -> None:
    data = encode(value)
    for parse in (parse_hello, parse_failure):
        with contextlib.suppress(PeerFault):
            assert isinstance(parse(data), Hello | ShoalError)


@given(st.text(max_size=30), st.text(max_size=30), st.dictionaries(st.text(max_size=12), VALUES, max_size=4))
def test_a_failure_is_always_an_error_that_can_be_shown(code: str, text: str, details: dict[str, object]) -> None:
    for name in ("c", "k"):
        said = {"c": "invalid_value", "k": "invalid_value", "t": text, "d": details} | {name: code}
        error = parse_failure(encode(said))
        assert isinstance(error, ShoalError)
        assert plain(text) in str(error)
        assert parse_failure(failure_bytes(error)).code == error.code


@given(
    st.text(min_size=1, max_size=16), st.floats(0.001, 4e6), st.integers(-128, 127), st.binary(max_size=64),
    st.binary(max_size=99),
)  # fmt: skip
def test_a_call_is_read_as_it_was_written(method: str, timeout: float, priority: int, key: bytes, body: bytes) -> None:
    ask = wire.parse_ask(wire.ask_head(method, timeout, priority, key) + body)
    assert (ask.method, ask.priority, ask.key, bytes(ask.body)) == (method, priority, key, body)
    assert ask.timeout_s is not None
    assert 0 <= ask.timeout_s - timeout <= 0.001 or ask.timeout_s == wire.MAX_TIMEOUT_MS / 1e3


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_a_hello_of_any_bytes_is_agreed_refused_or_a_fault(data: bytes, is_dialer: bool, is_private: bool) -> None:
    side = Handshake(
        ALICE, BOB, Hello("x", b"x" * 32, is_private=is_private), is_dialer, b"s" * 32 if is_private else None
    )
    side.start()
    try:
        out = side.receive(data)
    except (PeerFault, ShoalError):
        return
    assert len(out) <= 2 * MAX_HELLO
    assert side.agreed is None or not is_private


@given(st.binary(min_size=0, max_size=20), st.lists(st.integers(1, 30), min_size=1), st.booleans())
def test_a_hello_is_the_same_however_it_is_cut(rest: bytes, cuts: list[int], is_private: bool) -> None:
    secret = b"s" * 32 if is_private else None

    def sides() -> tuple[Handshake, Handshake]:
        return (Handshake(ALICE, BOB, Hello("a", b"a" * 32, is_private=is_private), True, secret),
                Handshake(BOB, ALICE, Hello("b", b"b" * 32, is_private=is_private), False, secret))  # fmt: skip

    def cut(side: Handshake, data: bytes) -> bytes:
        out, at, turn = b"", 0, 0
        while at < len(data):
            out += side.receive(data[at : at + cuts[turn % len(cuts)]])
            at, turn = at + cuts[turn % len(cuts)], turn + 1
        return out

    whole = sides()
    first = whole[0].receive(whole[1].receive(whole[0].start()))
    second = whole[1].receive(first) if first else b""
    whole[0].receive(second)
    pieces = sides()
    answer = cut(pieces[0], cut(pieces[1], pieces[0].start()))
    assert answer == first
    cut(pieces[0], cut(pieces[1], answer))
    for one, other in zip(whole, pieces, strict=True):
        assert one.agreed is not None
        assert one.agreed == other.agreed


# ---- one stream call: credit and order ----------------------------------------------------------------------


@given(st.permutations(range(12)), st.integers(0, 12))
def test_messages_come_out_in_order_whatever_overtook_what(arrival: list[int], end_after: int) -> None:
    inbound, got = Inbound(2**20, 2**20), list[bytes]()
    for step, seq in enumerate(arrival):
        if step == end_after:
            inbound.end(12)
        inbound.message(seq, memoryview(b"%d" % seq))
        while (message := inbound.take()) is not None:
            got.append(bytes(message))
    if end_after == 12:
        inbound.end(12)
    assert got == [b"%d" % seq for seq in range(12)]
    assert inbound.is_over


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=80), st.integers(500, 20_000))
def test_an_honest_sender_never_exceeds_its_credit_and_never_starves(
    steps: list[tuple[int, bool]], window: int
) -> None:
    """Whatever is sent and read in whatever order: no fault, held bytes bounded, and reading all lets more be sent."""
    out, inbound, held = Outbound(window), Inbound(window, window), 0
    for size, does_read in steps:
        if out.can_send:
            inbound.message(out.message(size), memoryview(bytes(size)))
            held += size
        if does_read and (message := inbound.take()) is not None:
            held -= message.nbytes
            out.grant(inbound.grant())
        assert held <= window + 5000
    while inbound.take() is not None:
        out.grant(inbound.grant())
    out.grant(inbound.grant())
    assert out.can_send


@given(st.lists(st.tuples(st.sampled_from("med"), st.integers(0, 6), st.integers(0, 3000)), max_size=60))
def test_whatever_a_peer_sends_on_a_stream_is_bounded(steps: list[tuple[str, int, int]]) -> None:
    inbound, held = Inbound(4000, 4000), 0
    try:
        for kind, number, size in steps:
            if kind == "e":
                inbound.end(number)
            elif kind == "m":
                inbound.message(number, memoryview(bytes(size)))
                held += size
            elif (message := inbound.take()) is not None:
                held -= message.nbytes
    except PeerFault:
        pass
    assert held <= 4000 + 2**15 + 64 + 3000
