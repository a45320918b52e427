"""Calls of the library without its coroutines: answers at once, answers later, errors, calls given up, changed glue."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shoal.mesh.quic import binding, foreign

glue = importlib.import_module("iroh.iroh_ffi")
ALPN = b"shoal-test"


async def endpoint(iroh: Any) -> Any:
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(), bind_addr="127.0.0.1:0", alpns=[ALPN], relay_mode=iroh.RelayMode.disabled()
    )
    return await iroh.Endpoint.bind(options)


def connected(check: Callable[[Any, Any], Awaitable[None]]) -> None:
    """Run `check` with both ends of one new stream, the second having been sent one byte."""

    async def run() -> None:
        iroh = binding.load()
        one, two = await endpoint(iroh), await endpoint(iroh)
        target = iroh.EndpointAddr(two.id(), None, list(two.addr().direct_addresses()))
        dialed, accepted = await asyncio.gather(one.connect(target, ALPN), take(two))
        try:
            near = await dialed.open_bi()
            await near.send().write_all(b"!")
            far = await accepted.accept_bi()
            await far.recv().read(1)
            async with asyncio.timeout(20):
                await check(near, far)
        finally:
            dialed.close(0, b"over")
            await asyncio.gather(one.close(), two.close())

    asyncio.run(run())


async def take(listening: Any) -> Any:
    return await (await (await listening.accept_next()).accept()).connect()


async def ended(call: foreign.Underway) -> foreign.Underway:
    over = asyncio.Event()
    if not call.done():
        call.add_done_callback(lambda call: over.set())
        await over.wait()
    return call


def kinds() -> list[foreign.Speech | foreign.Generated]:
    return [binding.speech(), foreign.Generated()]


def test_bytes_of_every_size_and_kind_arrive_as_they_were() -> None:
    async def check(near: Any, far: Any) -> None:
        for speech in kinds():
            for size in (1, 4, 5, 1200, 70_001, 300_000):
                sent = random.Random(size).randbytes(size)
                for data in (sent, bytearray(sent), memoryview(sent)):
                    writing, came = speech.write_all(near.send(), data), b""
                    while len(came) < size:
                        came += (await ended(speech.read(far.recv(), size - len(came)))).result()
                    assert came == sent
                    (await ended(writing)).result()

    connected(check)


def test_what_is_there_is_read_at_once_and_what_is_not_later() -> None:
    async def check(near: Any, far: Any) -> None:
        speech = binding.speech()
        later = speech.read(far.recv(), 10)
        assert not later.done()
        writing = speech.write_all(near.send(), b"0123456789ab")
        assert writing.done()
        assert (await ended(later)).result() == b"0123456789"
        rest = speech.read(far.recv(), 10)
        assert rest.done()
        assert rest.result() == b"ab"

    connected(check)


def test_the_librarys_errors_are_raised() -> None:
    async def check(near: Any, far: Any) -> None:
        await near.send().finish()
        for speech in kinds():
            call = await ended(speech.write_all(near.send(), b"late"))
            with pytest.raises(glue.IrohError):
                call.result()

    connected(check)


def test_a_call_given_up_frees_its_stream_and_says_nothing() -> None:
    async def check(near: Any, far: Any) -> None:
        speech, heard = binding.speech(), list[Any]()
        call = speech.read(far.recv(), 10)
        call.add_done_callback(heard.append)
        call.cancel()
        call.cancel()
        await near.send().write_all(b"abc")
        assert (await ended(speech.read(far.recv(), 10))).result() == b"abc"
        assert heard == []

    connected(check)


@pytest.mark.parametrize("missing", [*foreign.NAMES, "_UniffiLib"])
def test_changed_glue_is_spoken_to_through_its_coroutines(missing: str) -> None:
    names = [*foreign.NAMES, "_UniffiLib"]
    changed = SimpleNamespace(**{name: getattr(glue, name) for name in names if name != missing})
    assert isinstance(foreign.speak(changed), foreign.Generated)
    whole = SimpleNamespace(**{name: getattr(glue, name) for name in names})
    assert isinstance(foreign.speak(whole), foreign.Speech)
