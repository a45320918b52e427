"""A swarm of real node processes on this machine: start, kill, look at, ask; each node is a `shoal up`."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from common.environment import cache
from shoal.models.tiny import TinyShape
from shoal.models.tiny_file import write_tiny

READY = re.compile(r"serving .+ at (http://\S+) \(console\)")
TICKET = re.compile(r"shoal join (shoal1\S+)")
START_S = 180.0
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
FLAGS = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan", "--log-format", "off", "--threads", "1",
         "--port", "0", "--share-tokens", "1000000000")  # fmt: skip


@dataclass(slots=True)
class Node:
    """`id` is asked of the node when it is ready."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    began: float
    url: str = ""
    ticket: str = ""
    id: str = ""

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    def memory_bytes(self) -> int:
        """Resident, what it shares with others included."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK


@dataclass(slots=True)
class Swarm:
    """`folder` has the tiny model, the compiled kernels that all share, and a home and a log for each node."""

    folder: Path
    model: Path
    client: httpx.AsyncClient
    nodes: list[Node] = field(default_factory=list)

    async def start(self, name: str, ticket: str | None, *flags: str, model: str | None = None) -> Node:
        """A node that answers; the first one without a ticket. RuntimeError with the end of its log if it ends."""
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "kernels").exists():
            (home / "kernels").symlink_to(self.folder / "kernels")
        verb = ["up", "--share"] if ticket is None else ["join", ticket]
        command = [sys.executable, "-m", "shoal", *verb, "--model", model or str(self.model), *FLAGS, *flags]
        log = home / "log"
        with log.open("w") as file:
            process = await asyncio.create_subprocess_exec(
                *command, env=_environment(home), stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file
            )
        node = Node(name, process, log, time.perf_counter())
        self.nodes.append(node)
        await self._ready(node)
        return node

    async def mesh(self, node: Node) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"{node.url}/v1/mesh")).json()
        return found

    def kill(self, node: Node) -> None:
        node.process.send_signal(signal.SIGKILL)

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    async def _ready(self, node: Node) -> None:
        while time.perf_counter() - node.began < START_S:
            text = node.log.read_text()
            if ready := READY.search(text):
                node.url = ready[1]
                node.ticket = "" if (found := TICKET.search(text)) is None else found[1]
                node.id = (await self.mesh(node))["id"]
                return
            if not node.is_running:
                raise RuntimeError(f"{node.name} ended with {node.process.returncode}: {text[-2000:]}")
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{node.name} was not ready after {START_S:.0f} s: {node.log.read_text()[-2000:]}")


@asynccontextmanager
async def swarm() -> AsyncIterator[Swarm]:
    """An empty one; every node is gone afterwards."""
    folder = cache("swarm") / secrets.token_hex(4)
    kernels = cache("swarm") / "kernels"
    kernels.mkdir(exist_ok=True)
    folder.mkdir()
    (folder / "kernels").symlink_to(kernels)
    model = folder / "tiny.gguf"
    write_tiny(model, TinyShape(context_length=2048))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        made = Swarm(folder, model, client)
        try:
            yield made
        finally:
            for node in made.living():
                made.kill(node)
            await asyncio.gather(*(node.process.wait() for node in made.nodes))


def _environment(home: Path) -> dict[str, str]:
    """Every node may keep compiled modules, as an installed one does: compiling them is a third of a start."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SHOAL_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    own = {"SHOAL_HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return kept | own | {"PYTHONPYCACHEPREFIX": str(cache("swarm") / "bytecode")}
