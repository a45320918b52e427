"""What one peer may ask another: calls by name over links, whoever dialled. `rpc` implements this; all above speak it.

A method is a name such as "dht.find". A unary call is one message each way; a stream call is any number each way,
in order, with backpressure. A message is bytes (at most `MAX_MESSAGE`); its meaning is the method's own.

Rules that stay true:
- every call ends exactly once: a result, an error of a `ShoalError` class with the right blame, or cancelled;
- a deadline and a cancellation reach the other side's handler, which sees `asyncio.CancelledError`;
- a handler that raises a `ShoalError` gives the caller an error of the same code; any other exception becomes
  `LocalError` there with no detail, and is logged here.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from shoal.mesh.carrier import Bytes, LinkInfo
from shoal.mesh.peer_id import PeerId

MAX_MESSAGE = 256 * 2**20
"""Bytes of one message. Above any activation (4 MB) and any layer's weights that is worth one message."""

Body = Bytes | Sequence[Bytes]
"""A message to send; several buffers are one message, gathered without joining them first."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is made.

    timeout_s        the call's own limit, carried to the other side; DeadlineExceeded here when it passes.
    priority         small messages of higher priority are written first; bulk goes apart and delays none of them.
    idempotency_key  the same key within ten minutes gives the same answer without running the handler again.
    retries          times a failed link is tried anew; more than 0 only with an idempotency key, else ValueError.
    connect_s        how long it may take to get a link where there is none; then Unreachable. The dial goes on.
    """

    timeout_s: float = 30.0
    priority: int = 0
    idempotency_key: bytes | None = None
    retries: int = 0
    connect_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Incoming:
    """Who calls, what, by when (monotonic seconds of this machine's clock; None: no limit), and over which link."""

    peer: PeerId
    method: str
    deadline: float | None
    link: Callable[[], LinkInfo]


class CallStream(Protocol):
    """One side of a stream call."""

    async def send(self, message: Body) -> None:
        """Waits while the other side does not keep up."""
        ...

    async def end(self) -> None:
        """No more messages from this side."""
        ...

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """The other side's messages until it ends; raises its error where it failed."""
        ...


class Caller(Protocol):
    """Asks. Connects first where needed; `Unreachable` says which step of connecting failed."""

    async def call(self, peer: PeerId, method: str, body: Body, options: CallOptions = ...) -> memoryview: ...

    def stream(self, peer: PeerId, method: str, options: CallOptions = ...) -> AbstractAsyncContextManager[CallStream]:
        """Leaving the context cancels what has not ended."""
        ...


UnaryHandler = Callable[[Incoming, memoryview], Awaitable[Body]]
StreamHandler = Callable[[Incoming, CallStream], Awaitable[None]]


class Answering(Protocol):
    """Where handlers are registered, each method once (ValueError for a second)."""

    def unary(self, method: str, handler: UnaryHandler) -> None: ...

    def streaming(self, method: str, handler: StreamHandler) -> None: ...
