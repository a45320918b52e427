"""How far a stream's window grows: with the length of the path, not beyond what the path holds."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Callable

import pytest

from shoal.mesh.tcp import stream as streams
from shoal.mesh.tcp.frames import CREDIT
from shoal.mesh.tcp.stream import START_WINDOW, TcpStream

FRAME = 64 * 1024


class Path:
    """A sender's side that fills every window at once; each window takes the longer of a round trip and `rate`."""

    def __init__(self, rtt_s: float, bytes_per_s: float) -> None:
        self.rtt_s, self.bytes_per_s = rtt_s, bytes_per_s
        self.now, self.granted = 0.0, 0

    def say(self, frame: bytes) -> None:
        first = int.from_bytes(frame[:4], "big")
        assert first >> 24 == CREDIT
        self.granted += first & 0xFFFFFF

    async def send(self, priority: int, head: bytes, payload: memoryview, unsent: Callable[[int], None]) -> None:
        raise AssertionError("this side only reads")

    def hold(self, size: int) -> None:
        """Nobody counts what waits here."""

    def grow(self, size: int) -> bool:
        return True

    def pace(self) -> tuple[float, float]:
        return self.now, self.rtt_s

    def begin(self, stream: TcpStream) -> int:
        return 1

    def forget(self, stream: TcpStream) -> None:
        """The test ends with its stream."""


async def window_after(path: Path, num_bytes: int) -> int:
    """What may be under way after `num_bytes` went through a window that was always full."""
    stream, window, went = TcpStream(path, 0, 2), START_WINDOW, 0
    while went < num_bytes:
        path.now += max(path.rtt_s, window / path.bytes_per_s) * FRAME / window
        stream.receive(memoryview(bytes(FRAME)))
        await stream.read(FRAME)
        went += FRAME
        window = START_WINDOW + path.granted - went
    return window


@pytest.mark.parametrize(
    ("rtt_s", "bytes_per_s", "least", "most"),
    [
        (0.0002, 1e9, streams.START_WINDOW, streams.SHORT_WINDOW),
        (0.0, 1e9, streams.START_WINDOW, streams.SHORT_WINDOW),
        (0.020, 25e6, 500_000, 4 * 500_000 + streams.SHORT_WINDOW),
        (0.100, 1e9, streams.MAX_WINDOW // 2, streams.MAX_WINDOW),
    ],
)
def test_a_window_is_as_large_as_its_path(rtt_s: float, bytes_per_s: float, least: int, most: int) -> None:
    window = asyncio.run(window_after(Path(rtt_s, bytes_per_s), 32 * 2**20))
    assert least // 2 <= window <= most


def test_a_window_of_crumbs_takes_no_more_memory_than_its_size() -> None:
    """Two bytes a frame made a window of 256 kB take seven megabytes: four gigabytes a link."""

    async def scene() -> None:
        stream = TcpStream(Path(0.0, 1e9), 0, 2)
        data = memoryview(random.Random(1).randbytes(100_000))
        tracemalloc.start()
        for first in range(0, len(data), 2):
            stream.receive(data[first : first + 2])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 2 * len(data)
        assert await stream.read(len(data)) == data

    asyncio.run(scene())
