"""Where a frame goes: small ones to the lane, large ones to a bulk stream."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.errors import InvalidRequest
from shoal.mesh.calls import MAX_MESSAGE, Body
from shoal.mesh.carrier import Bytes
from shoal.mesh.rpc.bulk import BulkSender
from shoal.mesh.rpc.lane import Lane
from shoal.mesh.rpc.limits import BULK_BYTES
from shoal.mesh.rpc.wire import HEADER


def buffers_of(body: Body) -> tuple[int, Sequence[Bytes]]:
    """(bytes in all, the buffers, each counted in bytes). InvalidRequest above MAX_MESSAGE."""
    if isinstance(body, bytes):
        parts: Sequence[Bytes] = (body,)
        size = len(body)
    else:
        several = (body,) if isinstance(body, bytearray | memoryview) else body
        parts = [part if isinstance(part, bytes) else memoryview(part).cast("B") for part in several]
        size = sum(map(len, parts))
    if size > MAX_MESSAGE:
        raise InvalidRequest(f"expected a message of at most {MAX_MESSAGE} bytes, found {size}; send it in parts")
    return size, parts


class Outgoing:
    """A link's two ways out."""

    def __init__(self, lane: Lane, bulk: BulkSender) -> None:
        self._lane = lane
        self._bulk = bulk

    def post(self, kind: int, call: int, payload: bytes = b"", priority: int = 0) -> None:
        """A small frame, without waiting."""
        self._lane.push(priority, HEADER.pack(len(payload), kind, call) + payload)

    async def send(self, kind: int, call: int, head: bytes, size: int, parts: Sequence[Bytes], priority: int) -> None:
        """`head` and then the message; waits for room. Returns with the buffers free again."""
        header = HEADER.pack(len(head) + size, kind, call)
        if size <= BULK_BYTES:
            await self._lane.send(priority, b"".join((header, head, *parts)))
        else:
            await self._bulk.send(priority, header + head, parts)
