"""Who is here, who died, and how busy everybody is: SWIM over calls, with signed claims and few, lasting links.

claims      statements about oneself, accusations of others     roster      members; who watches whom
suspicion   how long to wait, own slowness, flapping            outbox      claims on their way, bounded
membership  the state machine, pure                             messages    the wire, parsed in one function a message
node        `Gossip`: the loop over a `Caller`

What it costs: every change of the membership reaches every peer, so bytes grow with the size and the churn of the mesh;
loads reach everybody as often as a budget allows, neighbours at once. What this does not protect against: a crowd of
identities fills every roster (an identity costs nothing here; the node decides whom it lets in).
"""

from shoal.mesh.gossip.claims import Load, Statement
from shoal.mesh.gossip.membership import Settings
from shoal.mesh.gossip.node import Gossip, Ground
from shoal.mesh.gossip.roster import Member

__all__ = ["Gossip", "Ground", "Load", "Member", "Settings", "Statement"]
