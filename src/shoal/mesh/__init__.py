"""Peers: how machines that do not trust each other find each other, connect through any NAT, and talk.

Files here: who a peer is (`peer_id`, `identity`), where it may be reached (`address`), how a machine is let in
(`ticket`), what carries bytes (`carrier`), what carriers wait on (`waiting`), what is called over it
(`calls`), tensors as messages (`tensors`, `fp8`), a token bucket (`bucket`). Folders: one per part, each with its own
list.

What this does not do: decide what a peer is asked or believed; that is `fleet` and `trust`.
"""
