"""A network that exists in memory: hosts behind NATs, delay, loss, bandwidth, partitions, under any clock.

agenda   what happens at which time.
nat      one NAT's table, as in RFC 4787.
network  hosts, conditions between them, datagrams, relays.
pipe     one direction of a link: bandwidth, priorities, retransmission.
stream   the contract's `Stream`.
link     the contract's `Link`.
dial     the handshake's messages and how a dial explains its failure.
carrier  the contract's `Carrier`.

What this does not do: encrypt, or model congestion. A link follows its hosts' conditions, not a router's queue.
"""

from shoal.mesh.memory.carrier import MemoryCarrier
from shoal.mesh.memory.network import Conditions, Host, Network

__all__ = ["Conditions", "Host", "MemoryCarrier", "Network"]
