"""Receipts as a server shows them: plain data and plain callables of the node, see `core.service`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.core.receipt import Signed


@dataclass(frozen=True, slots=True)
class ReceiptStats:
    """policy: always, asked or off. refused: receipts of peers that did not hold, and were taken out.

    audits  of peers' answers: how many were "drawn", and how their checks ended ("pass", "fail", "unsure", "error");
            "dropped": there was no time; "unsigned": the peer gave no receipt that held.
    """

    policy: str = "off"
    signed_total: int = 0
    refused_total: int = 0
    audits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """One receipt in words.

    id        signer and number; node: the signer's id as a peer.
    holds, problems  what was found by looking at it alone; valid: no problem.
    parts     who made which tokens, where others took part.
    verdicts  what checks of it found, each beginning with pass, fail or unsure; latest last.
    receipt, opening  base64 of the canonical bytes; no opening: it is not this node's to show, or not kept.
    """

    id: str
    request_id: str
    node: str
    sequence: int
    created: int
    model: str
    weights: str
    valid: bool
    holds: tuple[str, ...]
    problems: tuple[str, ...]
    parts: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    receipt: str = ""
    opening: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """Of receipts that somebody brought. chain: what is wrong with them as a chain."""

    valid: bool
    receipts: tuple[ReceiptView, ...]
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipts:
    """What a server may ask about receipts.

    stats   a fresh snapshot.
    encode  a receipt and its opening as the two texts of the API.
    find    by request id, or by number in this node's chain; None: there is none, or no longer.
    verify  of pairs (receipt, opening or None) as the API has them; InvalidRequest for what is none.
    """

    stats: Callable[[], ReceiptStats]
    encode: Callable[[Signed], dict[str, str]]
    find: Callable[[str], Awaitable[ReceiptView | None]]
    verify: Callable[[Sequence[tuple[str, str | None]]], Awaitable[Verification]]
