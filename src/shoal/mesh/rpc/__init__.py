"""Calls over links: `Rpc` implements `Caller` and `Answering` of `mesh.calls`.

One link carries one lane (its first stream: hello, then every small message, coalesced into one write per turn of the
event loop) and a few bulk streams (messages above `BULK_BYTES`, one at a time each), so that bulk delays no token.

Decisions, plain data in and out: wire (what the bytes mean), frames (bytes into frames), hello (who speaks what),
flow (credit and order of one stream call), failures (errors as bytes), idempotency (answers that are kept).
Loops: deadlines (one sleeper for all time limits), lane, bulk, channel (one stream call), asking (calls made),
serving (calls answered), session (one link), rpc (all links).

What this does not do: choose or make links (`switchboard`), encrypt or authenticate (carriers).
"""

from shoal.mesh.rpc.limits import NODE, Limits
from shoal.mesh.rpc.rpc import Conversation, Introduction, Rpc

__all__ = ["NODE", "Conversation", "Introduction", "Limits", "Rpc"]
