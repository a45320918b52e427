"""The library's errors as ours. It has one exception class; what happened stands in its text."""

from __future__ import annotations

import re

from shoal.core.errors import LinkClosed, StreamReset
from shoal.core.text import plain as printable

MAX_REASON = 200
_RESET = re.compile(r"^(Reset|Stopped)\(|^ClosedStream")
_SOURCE = re.compile(r" \(/[^)]*\)")
_REASON = re.compile(r'reason: b"(?P<reason>[^"]*)"')
_CLOSED_BY_PEER = re.compile(r"^closed by peer: (?P<reason>.*) \(code \d+\)$", re.DOTALL)


def plain(error: BaseException) -> str:
    """One line for a person: the innermost cause, without the library's source paths."""
    message = error.message() if hasattr(error, "message") else str(error) or type(error).__name__
    text = _SOURCE.sub("", str(message)).split("Caused by:")[-1]
    return printable(" ".join(text.split())[:MAX_REASON])


def of_stream(error: BaseException, peer: str) -> LinkClosed:
    """StreamReset where only the stream ended, LinkClosed where the connection did."""
    text = plain(error)
    if _RESET.match(text):
        return StreamReset(f"the stream with peer {peer} was given up")
    return of_link(text, peer)


def of_link(text: str, peer: str) -> LinkClosed:
    return LinkClosed(f"the link to peer {peer} has ended: {reason(text)}")


def reason(text: str) -> str:
    """The words the other side gave when it closed, or the library's own."""
    if match := _CLOSED_BY_PEER.match(text) or _REASON.search(text):
        return f"closed by the peer: {match['reason']}" if match["reason"] else "closed by the peer"
    if "TimedOut" in text or "timed out" in text:
        return "nothing was heard from the peer for too long"
    return text
