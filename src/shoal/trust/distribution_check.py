"""The distribution tier from the side of whoever doubts an answer: draw, ask, collect, reveal, vote.

What this does not protect against: see `distribution`; and every verifier drawn sees prompt and answer, so a node asks
nobody unless its owner chose this tier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from shoal.core.decoding import compact, parse
from shoal.core.encoding import encode
from shoal.core.errors import PeerFault, ShoalError
from shoal.core.receipt import ModelIdentity
from shoal.crypto.keys import PrivateKey
from shoal.mesh.calls import Caller, CallOptions
from shoal.mesh.parse import message
from shoal.mesh.peer_id import PeerId
from shoal.trust.check import Subject
from shoal.trust.check_rerun import question
from shoal.trust.distribution import Claims, Lines, check_claims, vote
from shoal.trust.distribution_draw import Drawn, Task, drawn, prove
from shoal.trust.distribution_reveal import (
    Commitment,
    RevealAsked,
    Revealed,
    check_revealed,
    in_order,
    is_committed,
)
from shoal.trust.distribution_serve import COMMIT, REVEAL
from shoal.trust.receipt import receipt_digest
from shoal.trust.verdict import Cost, Verdict

MAX_REPLY_BYTES = 2**20
MAX_REPLY_VALUES = 2**14
"""64 positions of 64 ranks are 8,500."""
LEAST_DRAWN = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asking:
    """How much is asked: verifiers drawn, positions, ranks at each; how long one may take over each step."""

    num_drawn: int = 5
    num_positions: int = 32
    num_ranks: int = 8
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class DistributionCheck:
    """A `Checker`. candidates: peers that say they serve the model and verify."""

    key: PrivateKey
    caller: Caller
    candidates: Callable[[ModelIdentity], Sequence[PeerId]]
    asking: Asking = field(default_factory=Asking)
    lines: Lines = field(default_factory=Lines)

    async def __call__(self, subject: Subject) -> Verdict:
        """InvalidRequest for an opening that cannot be run again. Peers that fail count as silent."""
        receipt = subject.receipt
        keys = {peer.key for peer in self.candidates(receipt.model)} - {receipt.node, self.key.public}
        if len(keys) < LEAST_DRAWN:
            reason = f"expected at least {LEAST_DRAWN} peers that could verify, found {len(keys)}"
            return Verdict("distribution", "unsure", reason)
        worst: Verdict | None = None
        for place in range(len(receipt.outputs)):
            verdict = await self._round(self._task(subject, place, tuple(sorted(keys))))
            if worst is None or _rank(verdict) < _rank(worst):
                worst = verdict
        return worst or Verdict("distribution", "unsure", "the receipt is of no answer")

    def _task(self, subject: Subject, place: int, candidates: tuple[bytes, ...]) -> Task:
        asked, receipt = question(subject.receipt, subject.opening, place), subject.receipt
        task = Task(
            receipt=receipt_digest(receipt),
            answerer=receipt.node,
            weights=receipt.model.weights,
            adapter=receipt.model.adapter,
            request=asked.request,
            prompt=asked.prompt,
            tokens=asked.tokens,
            begins=subject.begins(asked.choice),
            choice=asked.choice,
            num_positions=self.asking.num_positions,
            num_ranks=self.asking.num_ranks,
            num_drawn=_odd(min(self.asking.num_drawn, len(candidates))),
            candidates=candidates,
        )
        return replace(task, proof=prove(task, self.key))

    async def _round(self, task: Task) -> Verdict:
        chosen, body = drawn(task, self.key.public), encode(compact(task))
        name = task.digest
        peers = [*chosen.verifiers, task.answerer]
        committed = await self._all(dict.fromkeys(peers, body), COMMIT, Commitment)
        sound = [item for peer, item in committed.items() if item.peer == peer and is_committed(item, name)]
        asked = RevealAsked(name, in_order(sound))
        body_again = encode(compact(asked))
        revealed = await self._all({item.peer: body_again for item in sound}, REVEAL, Revealed)
        claims = {item.peer: self._claims(revealed.get(item.peer), asked, item, chosen, task) for item in sound}
        found = [said for peer in chosen.verifiers if (said := claims.get(peer)) is not None]
        verdict = vote(len(chosen.verifiers), found, claims.get(task.answerer), self.lines)
        sent = len(peers) * len(body) + len(sound) * len(body_again)
        return replace(verdict, cost=Cost(tokens=len(found) * task.question.num_rerun, sent_bytes=sent))

    def _claims(
        self, shown: Revealed | None, asked: RevealAsked, own: Commitment, chosen: Drawn, task: Task
    ) -> Claims | None:
        """None for whoever does not show what it committed to, or shows what no model says."""
        try:
            if shown is None:
                return None
            check_revealed(shown, asked, own)
            check_claims(shown.claims, len(chosen.positions), task.num_ranks)
            return shown.claims
        except PeerFault:
            return None

    async def _all(self, bodies: Mapping[bytes, bytes], method: str, kind: Callable[..., T]) -> dict[bytes, T]:
        """Answers of those who gave one in time and of the right form."""
        answers = await asyncio.gather(*(self._one(peer, method, body, kind) for peer, body in bodies.items()))
        return {peer: answer for peer, answer in zip(bodies, answers, strict=True) if answer is not None}

    async def _one(self, peer: bytes, method: str, body: bytes, kind: Callable[..., T]) -> T | None:
        options = CallOptions(timeout_s=self.asking.timeout_s)
        try:
            reply = await self.caller.call(PeerId(peer), method, body, options)
            return parse(kind, message(reply, MAX_REPLY_BYTES, MAX_REPLY_VALUES))
        except ShoalError:
            return None


def _odd(count: int) -> int:
    """An even number of verifiers resists no more liars than one fewer."""
    return count - 1 + count % 2


def _rank(verdict: Verdict) -> int:
    return ("fail", "unsure", "pass").index(verdict.outcome)
