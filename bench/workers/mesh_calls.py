"""What is measured of every mesh, in a process of its own: an echo one at a time, by many callers, and uploads.

A worker gives `Mesh`: how to listen, connect, and make the two calls. `echo` returns its body, `size` the body's length
in 8 bytes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from loop import serve

TICKS = os.sysconf("SC_CLK_TCK")


class Mesh(Protocol):
    async def listen(self, **options: Any) -> dict[str, Any]:
        """What `connect` of another process needs."""
        ...

    async def connect(self, **address: Any) -> dict[str, Any]: ...

    async def echo(self, body: bytes) -> Any: ...

    async def size(self, body: bytes) -> Any: ...


def cpu_seconds() -> float:
    """Of this process and everything it started."""
    processes: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        processes[int(folder.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    total, queue = 0.0, [os.getpid()]
    while queue:
        process = queue.pop()
        total += processes[process][1]
        queue += [child for child, (parent, _) in processes.items() if parent == process]
    return total


async def latency(mesh: Mesh, count: int) -> dict[str, Any]:
    """Seconds of each of `count` echoes of 128 bytes, one after the other."""
    body, times = bytes(128), []
    for _ in range(count):
        began = time.perf_counter()
        await mesh.echo(body)
        times.append(time.perf_counter() - began)
    return {"seconds": times}


async def rate(mesh: Mesh, callers: int, seconds: float) -> dict[str, Any]:
    """Echoes of 128 bytes by `callers` at once, each asking again as soon as it is answered."""
    body, done, errors = bytes(128), 0, 0
    until = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal done, errors
        while time.perf_counter() < until:
            try:
                await mesh.echo(body)
                done += 1
            except Exception as error:
                errors += 1
                if errors == 1:
                    print(f"first error at {callers} callers: {error!r}", flush=True)
                await asyncio.sleep(0.01)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(callers)))
    return {"done": done, "errors": errors, "seconds": time.perf_counter() - began}


async def upload(mesh: Mesh, size: int, seconds: float) -> dict[str, Any]:
    """Bodies of `size`, one after the other, for about `seconds` and at least twice."""
    body, count = bytes(os.urandom(1 << 16) * (size >> 16)) or os.urandom(size), 0
    await mesh.size(body)
    began = time.perf_counter()
    while count < 2 or time.perf_counter() - began < seconds:
        await mesh.size(body)
        count += 1
    return {"bytes": count * len(body), "seconds": time.perf_counter() - began}


async def latency_beside_bulk(mesh: Mesh, count: int, size: int) -> dict[str, Any]:
    """`latency` while bodies of `size` are uploaded without a pause."""
    body, is_over = os.urandom(1 << 16) * (size >> 16), asyncio.Event()

    async def without_pause() -> None:
        while not is_over.is_set():
            await mesh.size(body)

    upload = asyncio.create_task(without_pause())
    await asyncio.sleep(0.1)  # so that it is under way
    try:
        return await latency(mesh, count)
    finally:
        is_over.set()
        await upload


def run(mesh: Mesh) -> None:
    """Answer the benchmark's commands until it closes standard input."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def wait(work: Coroutine[Any, Any, dict[str, Any]] | Awaitable[dict[str, Any]]) -> dict[str, Any]:
        async def inside() -> dict[str, Any]:
            return await work

        return asyncio.run_coroutine_threadsafe(inside(), loop).result()

    serve(
        {
            "listen": lambda **options: wait(mesh.listen(**options)),
            "connect": lambda **address: wait(mesh.connect(**address)),
            "latency": lambda count: wait(getattr(mesh, "latency", lambda count: latency(mesh, count))(count)),
            "latency_beside_bulk": lambda count, size: wait(latency_beside_bulk(mesh, count, size)),
            "rate": lambda callers, seconds: wait(rate(mesh, callers, seconds)),
            "upload": lambda size, seconds: wait(upload(mesh, size, seconds)),
            "cpu": lambda: {"seconds": cpu_seconds()},
        }
    )
