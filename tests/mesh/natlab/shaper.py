"""A link with delay and loss between two network namespaces, in user space: for kernels without netem.

    python shaper.py NS1 NS2 DEVICE DELAY_MS LOSS SEED

Each namespace gets a TUN device of that name; this process reads IP packets from one and writes them to the other,
DELAY_MS later, except for a share LOSS of them. Order is kept. It prints "ready" once both devices are up; addresses
and routes are the caller's. The kernel finishes checksums and segmentation before a packet reaches a TUN device,
which is why this is not done with packet sockets.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 1500
QUEUE = 20_000
"""Packets in flight one way; more are lost, as in a full router."""

libc = ctypes.CDLL(None, use_errno=True)


def open_tun(namespace: str, device: str) -> int:
    """A non-blocking descriptor of a new TUN device in that namespace; this process moves there."""
    place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(place, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(place)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", device, "up", "mtu", str(MTU), "txqueuelen", "5000"], check=True)
    return tun


class Way:
    """One direction: what has been read from `source` waits for its time, then goes to `sink`."""

    def __init__(self, source: int, sink: int, delay_s: float, loss: float, dice: random.Random) -> None:
        self.source, self.sink = source, sink
        self._delay_s, self._loss, self._dice = delay_s, loss, dice
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        while True:
            try:
                packet = os.read(self.source, 65_536)
            except BlockingIOError:
                return
            if len(self._waiting) < QUEUE and self._dice.random() >= self._loss:
                self._waiting.append((time.monotonic() + self._delay_s, packet))

    def give(self) -> float | None:
        """Send what is due; seconds until the next, None where nothing waits."""
        while self._waiting:
            wait = self._waiting[0][0] - time.monotonic()
            if wait > 0:
                return wait
            try:
                os.write(self.sink, self._waiting.popleft()[1])
            except OSError:  # a packet the kernel refuses (its device was taken down) is a lost packet
                continue
        return None


def main(one: str, other: str, device: str, delay_ms: str, loss: str, seed: str) -> None:
    left, right = open_tun(one, device), open_tun(other, device)
    dice = random.Random(int(seed))
    ways = [Way(*ends, float(delay_ms) / 1000, float(loss), dice) for ends in ((left, right), (right, left))]
    print("ready", flush=True)
    while True:
        waits = [wait for way in ways if (wait := way.give()) is not None]
        ready, _, _ = select.select([left, right, sys.stdin], [], [], min(waits) if waits else None)
        if sys.stdin in ready:  # closed: whoever started this has gone
            return
        for way in ways:
            if way.source in ready:
                way.take()


if __name__ == "__main__":
    main(*sys.argv[1:])
