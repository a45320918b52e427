"""A store that every peer holds a copy of and nobody is in charge of: CRDTs over logs that their authors sign.

stamp     hybrid logical time                        entry     one signed link of an author's chain, and its operations
grant     who may write where                        slot      what one author has said about a key; how keys are read
log       one author's chain, its forks              replica   all logs: `receive` entries, read keys, write (pure)
heads     what differs between two replicas          messages  the wire, one parsing function a message
disk      SQLite                                     store     `Store`: all of it over a `Caller` and an `Answering`
registry  who serves which model at which price, the first thing held here

An author is an Ed25519 key. By default it writes under its own prefix (`own_prefix`); elsewhere it needs a grant by the
namespace's owner. Every peer that has the same entries reads the same values, in whatever order they came.

What this does not protect against: a crowd of keys fills the namespace's room; an author may withhold entries, or
rewrite its own past in a checkpoint; a grant is not taken back before it ends; a writer that was cut off for longer
than `TOMBSTONE_S` may bring back a key that was deleted meanwhile. Everything held here is public to the peers it is
synchronised with.
"""

from shoal.mesh.store.entry import Entry
from shoal.mesh.store.grant import Grant, Namespace, own_prefix
from shoal.mesh.store.log import Fork
from shoal.mesh.store.replica import Limits, Received, Replica
from shoal.mesh.store.store import Ground, Options, Store

__all__ = ["Entry", "Fork", "Grant", "Ground", "Limits", "Namespace", "Options", "Received", "Replica", "Store",
           "own_prefix"]  # fmt: skip
