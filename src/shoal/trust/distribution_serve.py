"""The serving side of the distribution tier: this node verifies an answer for a peer that drew it, within bounds.

    "audit.commit"  Task -> Commitment        one prefill; at most one at a time, a few wait
    "audit.reveal"  RevealAsked -> Revealed   from memory, once

Rules that stay true in this file:
- only for peers the owner consents to, counted like any other request of theirs (`admit`);
- only where this node was really drawn, by the one who asks, for the model it serves;
- what is kept is bounded in number and time, and of each peer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from shoal.core.clock import Clock
from shoal.core.decoding import compact, parse
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, Overloaded
from shoal.crypto.keys import PrivateKey
from shoal.mesh.calls import Answering, Incoming
from shoal.mesh.parse import message
from shoal.mesh.peer_id import PeerId
from shoal.trust.check_rerun import FindRerunner, Rerunner
from shoal.trust.distribution import Claims
from shoal.trust.distribution_claims import claims_of
from shoal.trust.distribution_draw import Drawn, Task, drawn
from shoal.trust.distribution_reveal import SALT_BYTES, Commitment, RevealAsked, check_list, commitment, reveal

COMMIT = "audit.commit"
REVEAL = "audit.reveal"
MAX_TASK_BYTES = 2 * 2**20
MAX_TASK_VALUES = 2**18
"""A prompt and an answer of 250,000 tokens. A byte can be a map, which is 200 as an object."""
MAX_REVEAL_VALUES = 2**12
MAX_WAITING = 4
BYTES_PER_TOKEN = 1024
"""Of a task that is only read: reading is charged too."""
MAX_KEPT = 64
MAX_KEPT_OF_PEER = 8
KEPT_S = 120.0

Admit = Callable[[PeerId, int], AbstractContextManager[None]]
"""(peer, tokens that its wish will cost) -> held while it runs; Unauthorized or Overloaded where it may not."""


@dataclass(frozen=True, slots=True)
class _Kept:
    peer: PeerId
    until: float
    task: Task
    drawn: Drawn
    own: Commitment
    salt: bytes
    claims: Claims


@dataclass(slots=True)
class Verifier:
    """`key` is this node's. counts are of tasks that were answered."""

    key: PrivateKey
    find: FindRerunner
    admit: Admit
    clock: Clock
    num_done: int = 0
    _kept: OrderedDict[tuple[PeerId, bytes], _Kept] = field(default_factory=OrderedDict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: int = 0

    def register(self, answering: Answering) -> None:
        answering.unary(COMMIT, self.commit)
        answering.unary(REVEAL, self.reveal)

    async def commit(self, incoming: Incoming, body: memoryview) -> bytes:
        """InvalidRequest for a task that is none of ours, Unauthorized or Overloaded where the owner says so."""
        if len(body) > MAX_TASK_BYTES:
            raise InvalidRequest(f"expected a task of at most {MAX_TASK_BYTES} bytes, found {len(body)}")
        with self.admit(incoming.peer, len(body) // BYTES_PER_TOKEN):
            task = parse(Task, message(body, MAX_TASK_BYTES, MAX_TASK_VALUES))
            rerunner = await self._model(task)
            chosen = drawn(task, incoming.peer.key)
            if self.key.public not in (*chosen.verifiers, task.answerer):
                raise InvalidRequest("this node was not drawn", "candidates")
        if self._waiting >= MAX_WAITING:
            raise Overloaded("this node verifies other answers now", 2.0)
        self._waiting += 1
        try:
            async with self._turn:
                with self.admit(incoming.peer, len(task.prompt) + len(task.tokens)):
                    claims = await claims_of(rerunner, task.question, chosen.positions, task.num_ranks)
        finally:
            self._waiting -= 1
        return encode(compact(self._keep(incoming.peer, task, chosen, claims)))

    async def reveal(self, incoming: Incoming, body: memoryview) -> bytes:
        """InvalidRequest for a task that is not waiting, or a list its claims are not shown for."""
        if len(body) > MAX_TASK_BYTES:
            raise InvalidRequest(f"expected at most {MAX_TASK_BYTES} bytes, found {len(body)}")
        asked = parse(RevealAsked, message(body, MAX_TASK_BYTES, MAX_REVEAL_VALUES))
        self._forget()
        kept = self._kept.get((incoming.peer, asked.task))
        if kept is None:
            raise InvalidRequest("expected a task that was committed to in the last two minutes", "task")
        check_list(asked, kept.task, kept.drawn, kept.own)
        del self._kept[incoming.peer, asked.task]
        self.num_done += 1
        return encode(compact(reveal(self.key, asked, kept.salt, kept.claims)))

    async def _model(self, task: Task) -> Rerunner:
        """The model here; InvalidRequest where it is another, or the request would make this node work for long."""
        if task.request.constraint is not None or task.request.tool_choice.mode in ("required", "named"):
            raise InvalidRequest("answers under a grammar are not verified for others", "request")
        rerunner = await self.find(task.request)
        here = rerunner.identity
        if (task.weights, task.adapter) != (here.weights, here.adapter):
            raise InvalidRequest("this node does not run that model", "weights")
        return rerunner

    def _keep(self, peer: PeerId, task: Task, chosen: Drawn, claims: Claims) -> Commitment:
        self._forget()
        if sum(kept.peer == peer for kept in self._kept.values()) >= MAX_KEPT_OF_PEER:
            raise Overloaded("you have not asked for the claims that are here already", KEPT_S)
        salt = secrets.token_bytes(SALT_BYTES)
        own = commitment(self.key, task.digest, salt, claims)
        until = self.clock.monotonic() + KEPT_S
        self._kept[peer, task.digest] = _Kept(peer, until, task, chosen, own, salt, claims)
        return own

    def _forget(self) -> None:
        """What nobody asked for in time, and the oldest beyond the bound."""
        now = self.clock.monotonic()
        while self._kept and (len(self._kept) >= MAX_KEPT or next(iter(self._kept.values())).until <= now):
            self._kept.popitem(last=False)
