"""Requests and chunks as the bytes of a stream call "fleet.answer".

    caller   -> request, once
    answerer -> b"" at once, then batches of chunks, b"" whenever there was none for TICK_S

So silence means trouble, not thought.

A deadline travels as seconds left, because clocks differ; the call's own timeout says the same to the other side's rpc.
"""

from __future__ import annotations

from dataclasses import fields, replace

from shoal.core.chunk import Chunk
from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import InvalidRequest, PeerFault, RemoteError
from shoal.core.request import Request

METHOD = "fleet.answer"
MODELS = "fleet.models"
TICK_S = 0.5
FIRST_SILENCE_S = 2.0
"""Until the first message: a peer that died a moment ago, and is not known to be dead yet, costs so much."""
MISSED_TICKS = 6
"""An answerer counts as gone after so many ticks, or of its longest pauses so far where these were longer."""
SILENCE_S = 8.0
"""The most that is waited, whatever the pauses were."""
MAX_REQUEST_BYTES = 4 * 2**20
"""A million tokens as ids or words. Reading more would keep the event loop for seconds."""
MAX_BATCH_BYTES = 2**20
MAX_BATCH = 4096
"""Chunks in one message."""


def write_request(request: Request, now: float) -> bytes:
    """`now`: monotonic seconds here, where `request.deadline` is meant. Who answers does not learn of `audit`.

    InvalidRequest for one without canonical bytes: the client's fault, and not of the peer it would have gone to.
    """
    left = None if request.deadline is None else max(0.0, request.deadline - now)
    try:
        return encode(compact(replace(request, deadline=left, audit="")))
    except (ValueError, TypeError) as error:
        told = f"this request cannot be sent to a peer: {error}; expected numbers below 2^64 and plain JSON"
        raise InvalidRequest(told, _unwritable(request)) from error


def _unwritable(request: Request) -> str | None:
    """The field that has no canonical bytes."""
    for item in fields(request):
        try:
            encode(compact(replace(_EMPTY, **{item.name: getattr(request, item.name)})))
        except (ValueError, TypeError):
            return "messages" if item.name == "prompt" else item.name
    return None


_EMPTY = Request("", "", "")


def read_request(data: bytes | memoryview, now: float) -> Request:
    """InvalidRequest for anything but what `write_request` writes: the caller made it up, or is newer than us."""
    if len(data) > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"expected a request of at most {MAX_REQUEST_BYTES} bytes, found {len(data)}")
    try:
        request = parse(Request, decode(bytes(data)))
    except RemoteError as error:
        raise InvalidRequest(f"expected a request, {error}") from error
    if request.deadline is None:
        return request
    return replace(request, deadline=now + max(0.0, request.deadline))


def write_chunks(chunks: list[Chunk]) -> bytes:
    return encode([compact(chunk) for chunk in chunks])


def read_chunks(data: bytes | memoryview) -> list[Chunk]:
    """PeerFault for anything but what `write_chunks` writes; an empty message is a tick: no chunks."""
    if not len(data):
        return []
    if len(data) > MAX_BATCH_BYTES:
        raise PeerFault(f"expected at most {MAX_BATCH_BYTES} bytes of chunks, found {len(data)}")
    try:
        items = decode(bytes(data))
        if type(items) is not list or len(items) > MAX_BATCH:
            raise PeerFault(f"expected at most {MAX_BATCH} chunks, found {type(items).__name__}")
        return [parse(Chunk, item) for item in items]
    except RemoteError as error:
        raise PeerFault(f"expected chunks, {error}") from error
