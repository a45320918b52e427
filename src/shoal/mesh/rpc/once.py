"""Calls with an idempotency key: the handler runs once for all who ask with the same key, over whichever link.

Rules that stay true in this file:
- whoever asks while the handler runs waits for that run; whoever asks later gets the kept answer;
- a run outlives the link it came over, so that the retry finds it, but not its deadline; it ends when all who asked
  have cancelled;
- an error of this machine (`LocalError`) is not kept: the next try runs the handler again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shoal.core.clock import Clock
from shoal.core.errors import LocalError, Overloaded, RemoteError, ShoalError
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc.idempotency import Answer, Answers

MAX_RUNS = 1024
"""Keyed calls of one peer that run at once, over all its links, the lost ones included."""

Name = tuple[PeerId, str, bytes]


@dataclass(slots=True)
class _Run:
    task: asyncio.Task[Answer]
    num_waiting: int = 0


class Once:
    """`run(name, handler)` for all links of this node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers = Answers()
        self._runs: dict[Name, _Run] = {}

    def __len__(self) -> int:
        """Handlers that run now."""
        return len(self._runs)

    async def run(self, name: Name, handle: Callable[[], Awaitable[bytes]], is_lost: Callable[[], bool]) -> bytes:
        """The answer under `name`. Cancelled while `is_lost()`, the handler goes on."""
        answer = self._answers.get(*name, self._clock.monotonic())
        if answer is None:
            answer = await self._joined(name, self._runs.get(name) or self._start(name, handle), is_lost)
        if isinstance(answer, ShoalError):
            raise answer
        return answer

    def close(self) -> None:
        for run in self._runs.values():
            run.task.cancel()

    async def _joined(self, name: Name, run: _Run, is_lost: Callable[[], bool]) -> Answer:
        run.num_waiting += 1
        try:
            return await asyncio.shield(run.task)
        finally:
            run.num_waiting -= 1
            if not run.num_waiting and not is_lost():
                run.task.cancel()  # harmless once it is done

    def _start(self, name: Name, handle: Callable[[], Awaitable[bytes]]) -> _Run:
        if sum(peer == name[0] for peer, _, _ in self._runs) >= MAX_RUNS:
            raise Overloaded(f"{MAX_RUNS} calls with keys run for this peer already; try again later")
        run = _Run(asyncio.get_running_loop().create_task(self._compute(name, handle), name=f"rpc {name[1]}"))
        self._runs[name] = run
        run.task.add_done_callback(lambda task: self._runs.pop(name, None))
        return run

    async def _compute(self, name: Name, handle: Callable[[], Awaitable[bytes]]) -> Answer:
        answer: Answer
        try:
            answer = await handle()
        except LocalError as error:
            return error
        except RemoteError as error:
            answer = error
        self._answers.put(*name, answer, self._clock.monotonic())
        return answer
