"""What links may cost this machine: each, and all together, because identities are free."""

from __future__ import annotations

import math
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

LANE_FLOOD_BYTES = 4 * 2**20
"""Answers a peer may leave unread while it goes on asking; beyond, it is cut off."""

BULK_STREAMS = 8
"""Bulk streams a side opens on one link; each carries one message at a time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """calls, streams  unary and stream calls of one peer that run at once; told to it in the hello.
    incoming_bytes  large messages held for one link: being received, or received and not yet used.
    all_incoming_bytes  the same for all links.
    message_bytes   the largest message that is received.
    reply_bytes     large answers that were computed and not yet taken, for all links; beyond, Overloaded.
    reply_s         how long a peer may take to begin to take one, and a second for each 100 kB of it.
    window_bytes    unread bytes of one stream call.
    waiting_calls   calls of ours that wait for one of the other side's places; beyond, Overloaded.
    hello_s         time a peer has to say hello.
    links_per_peer  links of one peer that are served at once; the oldest is closed for a new one.
    hellos          links that are saying hello at once; beyond, the one that began first is closed.
    time_share, all_time_share  seconds of the event loop a second for one link and for all; see `share`.
    """

    calls: int = 1024
    streams: int = 128
    incoming_bytes: int = 2 * MAX_MESSAGE
    all_incoming_bytes: int = 4 * MAX_MESSAGE
    message_bytes: int = MAX_MESSAGE
    reply_bytes: int = 4 * MAX_MESSAGE
    reply_s: float = 30.0
    window_bytes: int = 2**20
    waiting_calls: int = 4096
    hello_s: float = 10.0
    links_per_peer: int = 4
    hellos: int = 256
    time_share: float = math.inf
    all_time_share: float = math.inf


REPLY_BYTES_PER_S = 100_000

NODE = Limits(
    calls=128,
    streams=32,
    incoming_bytes=64 * 2**20,
    all_incoming_bytes=256 * 2**20,
    message_bytes=32 * 2**20,
    reply_bytes=128 * 2**20,
    time_share=0.25,
    all_time_share=0.5,
)
"""Of a node among strangers: peers together hold less than half a gigabyte of messages and use half of the event loop,
which its owner's clients need as well."""
