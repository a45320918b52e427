"""The chain of one node's receipts: each names the head before it, so that none can be left out unnoticed. Pure.

    head(0) = H(node)      head(n) = H(head(n - 1), digest of receipt n)      receipt n has previous = head(n - 1)

Where a node forgot the text of old receipts, their digests alone still lead from head to head.

What this does not protect against: receipts at the end that nobody else has seen, and a node that keeps two chains for
two audiences: `check_chain` finds the fork once receipts of both are in one hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from shoal.core.receipt import Receipt
from shoal.crypto.hashes import blake3_digest
from shoal.trust.receipt import receipt_digest

_BEGIN = "shoal receipt chain begin v1"
_LINK = "shoal receipt chain link v1"


def first_head(node: bytes) -> bytes:
    """What the first receipt of `node` names."""
    return blake3_digest(_BEGIN, node)


def next_head(head: bytes, digest: bytes) -> bytes:
    return blake3_digest(_LINK, head + digest)


def head_after(receipt: Receipt) -> bytes:
    """What the receipt after this one must name."""
    return next_head(receipt.previous, receipt_digest(receipt))


def check_chain(receipts: Iterable[Receipt]) -> list[str]:
    """What is wrong with these as one or several nodes' chains, in words; nothing: they follow each other."""
    by_node: dict[bytes, dict[int, Receipt]] = {}
    problems: list[str] = []
    for receipt in receipts:
        own = by_node.setdefault(receipt.node, {})
        other = own.setdefault(receipt.sequence, receipt)
        if other != receipt:
            problems.append(f"fork: two different receipts have number {receipt.sequence}; the signer keeps two chains")
    for node, own in by_node.items():
        problems += _check_one(node, [own[number] for number in sorted(own)])
    return problems


def _check_one(node: bytes, receipts: Sequence[Receipt]) -> list[str]:
    problems = []
    first = receipts[0]
    if first.sequence < 1:
        problems.append(f"expected numbers from 1 on, found {first.sequence}")
    if first.sequence == 1 and first.previous != first_head(node):
        problems.append("number 1 does not begin this node's chain: something came before it")
    for before, after in pairwise(receipts):
        if missing := after.sequence - before.sequence - 1:
            which = f"number {before.sequence + 1}" if missing == 1 else f"numbers {before.sequence + 1} to"
            tail = " is missing" if missing == 1 else f" {after.sequence - 1} are missing"
            problems.append(f"gap: {which}{tail}")
        elif after.previous != head_after(before):
            problems.append(f"number {after.sequence} does not follow the number {before.sequence} given here")
        if after.created < before.created - CLOCK_STEP_S:
            problems.append(f"number {after.sequence} is dated before number {before.sequence}")
    return problems


CLOCK_STEP_S = 3600
"""A signer's clock may be set back so far without a word."""
