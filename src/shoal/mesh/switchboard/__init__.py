"""One logical link per peer, whoever dialled and over whatever carrier; every connection explains itself.

book         where peers may be reached, from whom we have it and how old it is.
choice       which of several links to a peer is used, and which are surplus.
record       one peer's history as plain data: phases, back-off, the steps of the last dial.
gate         how many links there may be and how fast strangers may add some.
lines        the links there are: which is used, which idle, how much went over each.
dialing      one dial over all carriers, staggered.
switchboard  the loops around them.

What this does not protect against: hints are claims. A liar can make this node try wrong addresses (few per
peer, and backed off) but never make it take another peer for the one it wanted. Whoever can forge a TCP reset ends
that link and a QUIC link beside it; both are dialled again.
"""

from shoal.mesh.switchboard.book import AddressBook
from shoal.mesh.switchboard.gate import Limits
from shoal.mesh.switchboard.record import PeerReport, Step
from shoal.mesh.switchboard.switchboard import Switchboard

__all__ = ["AddressBook", "Limits", "PeerReport", "Step", "Switchboard"]
