"""What lies between this machine and the others, and how to get through it without a relay.

Files here:
journal    what was tried and how it went, kept for people.
classify   observed addresses into a kind of NAT: pure.
observe    "nat.observe": any public peer tells a caller the address it comes from.
introduce  "nat.introduce", "nat.dial": a common peer tells two others to dial each other at once.
pcp        PCP (RFC 6887): asking a home router for a port.
natpmp     NAT-PMP (RFC 6886): the same for older routers.
upnp       UPnP IGD: the same for routers that speak only that.
service    the node's part: observe, classify, map, and tell the quic carrier its addresses.

What this does not protect against: an observer may lie about an address. One that nobody else confirms is used only
where there is no second observer, and then costs a few lost packets to whoever owns it. A home router believes
whoever is in the home.
"""

from shoal.mesh.nat.classify import Nat, Observation, classify
from shoal.mesh.nat.introduce import Introducer, meet
from shoal.mesh.nat.journal import Journal, Step
from shoal.mesh.nat.observe import answer_observe, observe
from shoal.mesh.nat.service import NatService

__all__ = [
    "Introducer",
    "Journal",
    "Nat",
    "NatService",
    "Observation",
    "Step",
    "answer_observe",
    "classify",
    "meet",
    "observe",
]
