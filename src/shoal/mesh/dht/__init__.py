"""A Kademlia DHT over calls: who serves this model, who holds this blob, where is this peer; without anybody in charge.

contact   who is in the table and what its place cost        table    k-buckets, pure
lookup    the iterative search, pure; disjoint paths         record   signed records and their keys
storage   what is held for others, bounded, pure             finding  what a search has been shown
messages  the wire, parsed in one function a message         walk     concurrent calls of a search
node      `Dht`: all of it over a `Caller` and an `Answering`

What this does not protect against: a crowd that pays for many identities near one key can hide that key's records
from those who search (never forge them); whoever stores or searches shows the key, not its name, to the peers it asks;
records live in memory and only as long as their authors renew them.
"""

from shoal.mesh.dht.contact import Contact
from shoal.mesh.dht.node import Dht, Ground, Options
from shoal.mesh.dht.record import Draft, Record, record_key, topic_of

__all__ = ["Contact", "Dht", "Draft", "Ground", "Options", "Record", "record_key", "topic_of"]
