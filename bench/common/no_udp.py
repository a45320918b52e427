"""A network in which UDP goes nowhere, so that only a relay connects: a namespace of its own, loopback and a filter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.environment import cache

RULES = "table inet bench { chain out { type filter hook output priority 0; meta l4proto udp drop; }; }"


@contextmanager
def python_without_udp() -> Iterator[Path | None]:
    """A Python that runs there; None, with a line that says so, where namespaces cannot be made."""
    name = f"shoal-bench-{os.getpid()}"
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")):
        print("no relayed figures: they need root, ip and nft to block UDP", file=sys.stderr)
        yield None
        return
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "nft", RULES], check=True)
        wrapper = cache("mesh") / "python_without_udp"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(inside)} {sys.executable} "$@"\n')
        wrapper.chmod(0o755)
        yield wrapper
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
