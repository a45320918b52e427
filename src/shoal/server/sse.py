"""Server-sent events as an ASGI response. The status line waits for the first event: an early error has its own status.

A stream that stays silent for `keepalive_s` to twice as long gets a comment; if that comes before the first event, the
status is 200 from then on. An error after the status is an event like any other, and the stream then ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from shoal.server.cancel import until_gone

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx holds streams back without it
)


def event(data: bytes, name: str | None = None) -> bytes:
    """`data` is one line of JSON."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"


@dataclass(frozen=True, slots=True)
class EventStream:
    """`on_error` turns an error in mid-stream into its last event."""

    events: AsyncGenerator[bytes]
    on_error: Callable[[Exception], bytes]
    keepalive_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._send_all(_Output(send)))

    async def _send_all(self, output: _Output) -> None:
        ticker = asyncio.create_task(_tick(output, self.keepalive_s))
        try:
            async with aclosing(self.events) as events:
                async for data in events:
                    await output.write(data)
        except Exception as error:
            if not output.is_started:
                raise
            await output.write(self.on_error(error))
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker
        await output.end()


@dataclass(slots=True)
class _Output:
    send: Send
    is_started: bool = False
    is_silent: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, data: bytes) -> None:
        async with self.lock:
            if not self.is_started:
                self.is_started = True
                await self.send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            self.is_silent = False
            await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _tick(output: _Output, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        if output.is_silent:
            await output.write(KEEPALIVE)
        output.is_silent = True
