"""A share of the answers that came from peers, checked in idle time.

    answer of a peer --drawn by policy--> queue (bounded) --when nobody waits for this machine--> settle --> recorded

Rules that stay true in this file:
- every answer of a peer is asked for with a receipt while audits are on, so nothing tells a peer which are checked;
- nothing is checked while a request runs or waits here; a queue that grows past its bound drops the oldest entry of
  the peer that has most in it;
- an answer never waits for its check, and no failure of a check reaches an answer;
- a peer whose whole answer comes without what a check needs is told of: silence must not be the way around audits.

What this does not protect against: a peer that answers honestly until it is trusted, or a single fraud that is not
drawn. `policy.detection` says what a rate promises.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.core.receipt import Opening, Receipt
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.trust.check import Checkers, Subject, decided, settle
from shoal.trust.policy import Draw, Policy
from shoal.trust.receipt import receipt_digest
from shoal.trust.verdict import Verdict

MAX_QUEUE = 64
MAX_QUEUED_TOKENS = 200_000
MAX_RECORDS = 2000
IDLE_LOOK_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """What came of checking the part that `peer` made of the answer to `request_id`, at Unix seconds `at`."""

    request_id: str
    peer: str
    verdicts: tuple[Verdict, ...]
    at: float

    @property
    def verdict(self) -> Verdict:
        return decided(self.verdicts)


@dataclass(frozen=True, slots=True)
class _Drawn:
    request_id: str
    peer: str
    subject: Subject

    @property
    def num_tokens(self) -> int:
        opening = self.subject.opening
        return len(opening.prompt) + sum(len(output.tokens) for output in opening.outputs)


@dataclass(slots=True)
class Audits:
    """`is_idle`: nobody's request runs or waits here. `told` hears every record, whoever it accuses or clears;
    `unsigned` the name of a peer whose answer cannot be checked. `wished`: what a request itself says, if anything.

    counts  "drawn", "dropped", "unsigned" (no receipt that held, or nothing in it to check), "pass", "fail", "unsure",
            "error".
    """

    policies: Sequence[Policy]
    draw: Draw
    checkers: Checkers
    clock: Clock
    is_idle: Callable[[], bool]
    told: Callable[[Record], None] = lambda record: None
    unsigned: Callable[[str], None] = lambda peer: None
    wished: Callable[[Request], Policy | None] = lambda request: None
    counts: Counter[str] = field(default_factory=Counter)
    _queue: deque[tuple[Policy, _Drawn]] = field(default_factory=deque)
    _records: OrderedDict[str, tuple[Record, ...]] = field(default_factory=OrderedDict)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def audited(self, generate: Generate, peer: str) -> Generate:
        """Answers of `peer`, each with a receipt asked for; the requester sees one only where it asked itself."""

        async def answer(request: Request) -> AsyncIterator[Chunk]:
            async with closing(generate(replace(request, receipt=True))) as chunks:
                async for chunk in chunks:
                    if chunk.usage is not None:
                        self._ended(peer, request, chunk)
                    yield chunk if request.receipt else replace(chunk, receipt=None, opening=None)

        return answer

    def _ended(self, peer: str, request: Request, last: Chunk) -> None:
        """A whole answer; `usage` comes with its last chunk, and the receipt with it."""
        opening = last.opening
        if last.receipt is None or opening is None or not _can_be_checked(last.receipt, opening):
            self.counts["unsigned"] += 1
            self.unsigned(peer)
        elif any(output.num_tokens > output.begins for output in last.receipt.outputs):
            self.offer(peer, request, last.receipt, opening)

    def offer(self, peer: str, request: Request, receipt: Receipt, opening: Opening) -> None:
        """An answer of `peer` is there: it may be drawn. Never raises, never waits."""
        wished = self.wished(request)
        policies = self.policies if wished is None else (wished,)
        drawn = [policy for policy in policies if self.draw.is_drawn(policy, receipt_digest(receipt))]
        if not drawn:
            return
        subject = Subject(receipt, opening, _begun(request, receipt))
        self.counts["drawn"] += 1
        self._queue.append((drawn[-1], _Drawn(request.request_id, peer, subject)))
        while len(self._queue) > MAX_QUEUE or sum(drawn.num_tokens for _, drawn in self._queue) > MAX_QUEUED_TOKENS:
            self._drop_one()
        self._filled.set()

    def _drop_one(self) -> None:
        """The oldest of the peer that has most here: nobody's answers push out another's."""
        sizes, numbers = Counter[str](), Counter[str]()
        for _, drawn in self._queue:
            sizes[drawn.peer] += drawn.num_tokens
            numbers[drawn.peer] += 1
        is_full = len(self._queue) > MAX_QUEUE
        most = max(numbers if is_full else sizes, key=(numbers if is_full else sizes).__getitem__)
        self._queue.remove(next(item for item in self._queue if item[1].peer == most))
        self.counts["dropped"] += 1

    def records(self, request_id: str) -> tuple[Record, ...]:
        """What is known of an answer; nothing yet, or ever, where it was not drawn."""
        return self._records.get(request_id, ())

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    async def run(self) -> None:
        """Check what is drawn until cancelled."""
        while True:
            await self._filled.wait()
            await self.wait_until_idle()
            if not self._queue:
                self._filled.clear()
                continue
            policy, drawn = self._queue.popleft()
            await self._check(policy, drawn)

    async def wait_until_idle(self) -> None:
        while not self.is_idle():
            await self.clock.sleep(IDLE_LOOK_S)

    async def _check(self, policy: Policy, drawn: _Drawn) -> None:
        try:
            verdicts = await settle(drawn.subject, policy.tier, self.checkers, self.clock)
        except ShoalError as error:
            self.counts["error"] += 1
            _log.info("an answer of %s could not be checked: %s", drawn.peer[:10], error)
            verdicts = (Verdict(policy.tier, "unsure", str(error)),)
        except Exception:  # a bug in a check must not end all checks
            self.counts["error"] += 1
            _log.exception("checking an answer of %s failed", drawn.peer[:10])
            return
        record = Record(drawn.request_id, drawn.peer, verdicts, self.clock.wall())
        self.counts[record.verdict.outcome] += 1
        self._keep(record)
        self.told(record)

    def _keep(self, record: Record) -> None:
        self._records[record.request_id] = (*self.records(record.request_id), record)
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)


def _can_be_checked(receipt: Receipt, opening: Opening) -> bool:
    """Fingerprints of everything that was computed. Nothing at all (no token was asked for) is no evasion."""
    if len(opening.outputs) != len(receipt.outputs):
        return False
    pairs = zip(receipt.outputs, opening.outputs, strict=True)
    return all(shown.fingerprints or output.num_tokens == output.begins for output, shown in pairs)


def _begun(request: Request, receipt: Receipt) -> dict[int, int]:
    """Where its part of a choice begins that somebody else began. Where only text was given, the tokens in it are the
    answerer's own count; `accept` has seen that the rest are those it sent.
    """
    resume = request.resume
    if resume is None:
        return {}
    told = {output.choice: output.begins for output in receipt.outputs}
    is_by_text = not resume.tokens and resume.text
    return {resume.choice: told.get(resume.choice, 0) if is_by_text else len(resume.tokens)}
