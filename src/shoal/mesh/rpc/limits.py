"""What one link may cost this machine. All of it is per link; `links_per_peer` makes it per peer."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.mesh.calls import MAX_MESSAGE

BULK_BYTES = 32 * 2**10
"""Messages larger than this go over bulk streams. At 32 KB a message delays a token by 0.3 ms at 100 MB/s."""

INITIAL_CREDIT = 64 * 2**10
"""Bytes a caller may send on a stream call before the other side has answered its opening."""

MESSAGE_COST = 64
"""Bytes of credit a message costs beyond its length, so that empty messages are not free."""

LANE_QUEUE_BYTES = 2**20
"""Above this, whoever sends waits: what is queued here cannot be overtaken by something more urgent."""

LANE_FLOOD_BYTES = 16 * 2**20
"""Answers a peer may leave unread while it goes on asking; beyond, it is cut off."""

BULK_STREAMS = 8
"""Bulk streams a side opens on one link; each carries one message at a time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """calls, streams  unary and stream calls of one peer that run at once; told to it in the hello.
    incoming_bytes  large messages held for one link: being received, or received and not yet used.
    window_bytes    unread bytes of one stream call.
    waiting_calls   calls of ours that wait for one of the other side's places; beyond, Overloaded.
    hello_s         time a peer has to say hello.
    links_per_peer  links of one peer that are served at once; the oldest is closed for a new one.
    hellos          links that are saying hello at once; beyond, new ones are closed.
    """

    calls: int = 1024
    streams: int = 128
    incoming_bytes: int = 2 * MAX_MESSAGE
    window_bytes: int = 2**20
    waiting_calls: int = 4096
    hello_s: float = 10.0
    links_per_peer: int = 4
    hellos: int = 256
