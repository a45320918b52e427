"""A door for this home's owner into the node that runs here: `shoal models pull --from-mesh` hands its download over.

The node listens on a loopback port of its own choice and keeps "port token" in `mesh/control`, readable by the owner
only. Whoever sends the token first may ask; lines of JSON go both ways:

    ->  {"token", "wish": [model, sha256, size, [blobs to avoid, in hex]], "name", "tickets"}
    <-  {"done", "size"}, again and again
    <-  {"file": [name, blob in hex, size, sha256, file name]}   or   {"error", "code"}

Closing the connection cancels. What came stays in the store's staging folder, where the asking process checks it.

What this does not protect against: other programs of the same user, who could read the token; they could read the
identity too. Other users can open connections: few are kept, and without the token only for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from shoal.core.errors import LocalError, ShoalError, Unavailable
from shoal.mesh.address import Address
from shoal.mesh.content import Job, Transfers
from shoal.mesh.ticket import parse_ticket
from shoal.models.store import Store
from shoal.node.config import NodeConfig
from shoal.node.mesh_home import MeshHome
from shoal.node.mesh_parts import Parts
from shoal.node.mesh_search import Search, Wish, arriving, older
from shoal.node.model_shelf import ModelFile

LINE_BYTES = 64 * 1024
ASKING_S = 5.0
TELL_S = 0.1
"""Between two words on progress."""
MAX_CONNECTIONS = 16


@dataclass(slots=True)
class Control:
    """The node's side. `seeds`: where it joined by, which it may not be connected to yet."""

    config: NodeConfig
    parts: Parts
    transfers: Transfers
    seeds: tuple[Address, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def open(self, home: MeshHome) -> AsyncIterator[None]:
        """Listening for as long as this lasts; what is asked for ends with it."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=LINE_BYTES)
        home.save_control(server.sockets[0].getsockname()[1], self.token)
        try:
            yield
        finally:
            home.forget_control()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await asyncio.wait_for(_read(reader), ASKING_S)
            if asked is None or not hmac.compare_digest(str(asked.get("token")).encode(), self.token.encode()):
                return
            work = asyncio.create_task(self._fetch(asked, writer))
            gone = asyncio.create_task(reader.read())  # ends when the asking process hangs up
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    _write(writer, work.result())
                    await writer.drain()
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        except (TimeoutError, OSError):
            return
        finally:
            writer.close()

    async def _fetch(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        store, name, told = Store(self.config.home), str(asked.get("name")), -TELL_S

        def tell(done: int, size: int) -> None:
            nonlocal told
            now = self.parts.clock.monotonic()
            if now - told >= TELL_S and writer.transport.get_write_buffer_size() < LINE_BYTES:
                told = now
                _write(writer, {"done": done, "size": size})

        try:
            tickets = [parse_ticket(str(text), self.parts.clock.wall()) for text in asked.get("tickets", [])]
            seeds = (*(address for ticket in tickets for address in ticket.bootstrap), *self.seeds)
            job = Job(b"", arriving(store, name), name, older(store, name), tell)
            found = await Search(self.parts, tuple(dict.fromkeys(seeds)), self.transfers).fetch(_wish(asked), job)
        except ShoalError as error:
            return {"error": str(error), "code": error.code}
        return {"file": [found.name, found.blob.hex(), found.size_bytes, found.sha256, found.file]}


async def hand_over(home: MeshHome, wish: Wish, job: Job, tickets: tuple[str, ...]) -> ModelFile | None:
    """Let the node that runs with this home fetch `wish` to `arriving(store, job.name)`; None where none runs.

    Unavailable when no peer has it or the node stops meanwhile.
    """
    place = home.control()
    if place is None:
        return None
    port, token = place
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES)
    except OSError:  # it was killed, and left its word behind
        return None
    try:
        row = [wish.name, wish.sha256, wish.size_bytes, [blob.hex() for blob in wish.avoid]]
        _write(writer, {"token": token, "wish": row, "name": job.name, "tickets": tickets})
        return await _follow(reader, job.on_bytes)
    finally:
        writer.close()


def _wish(asked: dict[str, Any]) -> Wish:
    match asked.get("wish"):
        case [str(name), str(sha256), int(size), list(avoid)]:
            return Wish(name, sha256, size, frozenset(bytes.fromhex(str(blob)) for blob in avoid))
    raise LocalError("the node that runs here is of another version than this command; restart it")


async def _follow(reader: asyncio.StreamReader, on_bytes: Callable[[int, int], None]) -> ModelFile:
    while (told := await _read(reader)) is not None:
        match told:
            case {"done": int(done), "size": int(size)}:
                on_bytes(done, size)
            case {"file": [str(name), str(blob), int(size), str(sha256), str(file)]}:
                return ModelFile(name, bytes.fromhex(blob), size, sha256, file)
            case {"error": str(text), "code": Unavailable.code}:
                raise Unavailable(text)
            case {"error": str(text)}:
                raise LocalError(text)
    raise Unavailable("the node that fetched it for this command stopped; run it again: what came is kept")


async def _read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next line's object; None at the end, or for anything else."""
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(await reader.readline())
        return found if isinstance(found, dict) else None
    return None


def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        writer.write(json.dumps(message).encode() + b"\n")
