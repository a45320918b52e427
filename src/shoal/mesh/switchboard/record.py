"""One peer's history as plain data; every change is a function of the old record and the time.

idle -> dialing -> connected -> idle
           |           (the link ended)
           v
        backoff -> dialing ...
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId

Phase = Literal["idle", "dialing", "connected", "backoff"]

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 60.0
MAX_STEPS = 24


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried and how it ended; `took_s` seconds."""

    what: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """`steps`: what failed in the last dial; beside a link they say why it is not a better one.

    `failures`: dials that failed since the last success. `retry_at`, `changed_at`, `ended_at` (when the last link
    ended): monotonic seconds."""

    phase: Phase = "idle"
    failures: int = 0
    retry_at: float = 0.0
    changed_at: float = 0.0
    ended_at: float = 0.0
    dials: int = 0
    links: int = 0
    steps: tuple[Step, ...] = ()
    last_end: str = ""


@dataclass(frozen=True, slots=True)
class PeerReport:
    """A peer as `shoal peers` and the console show it. `link` is the one in use; `others`: surplus ones.

    throughput  bytes a second, both ways, over the last second in which anything was sent; None before that.
    retry_in_s  until the next dial is allowed; 0 where it is now.
    """

    peer: PeerId
    phase: Phase
    link: LinkInfo | None
    others: int
    throughput: float | None
    is_kept: bool
    failures: int
    retry_in_s: float
    steps: tuple[Step, ...]
    last_end: str
    source: str


def dialing(record: Record, now: float) -> Record:
    return replace(record, phase="dialing", changed_at=now, dials=record.dials + 1)


def connected(record: Record, now: float) -> Record:
    """A link is there."""
    return replace(
        record, phase="connected", failures=0, retry_at=now, changed_at=now, links=record.links + 1, steps=()
    )


def failed(record: Record, steps: tuple[Step, ...], now: float, dice: float) -> Record:
    """The wait doubles to MAX_WAIT_S; `dice` in [0, 1) spreads peers that failed together over half of it."""
    wait_s = min(FIRST_WAIT_S * 2 ** min(record.failures, 20), MAX_WAIT_S) * (0.75 + dice / 2)
    return replace(
        record,
        phase="backoff",
        failures=record.failures + 1,
        retry_at=now + wait_s,
        changed_at=now,
        steps=steps[:MAX_STEPS],
    )


def ended(record: Record, reason: str, now: float) -> Record:
    """The last link is gone."""
    phase: Phase = "dialing" if record.phase == "dialing" else "idle"
    return replace(record, phase=phase, changed_at=now, ended_at=now, last_end=reason)


def renewed(record: Record) -> Record:
    """Something new is known of where the peer is: no reason to wait any longer."""
    return replace(record, phase="idle", failures=0, retry_at=0.0) if record.phase == "backoff" else record
