"""Files by the hash of what is in them, from several peers at once, each piece checked.

chunker   cuts where the content says, so that a new version of a file keeps most of its pieces
manifest  a blob's pieces and its id                       library   which blobs this node shares, and serving them
schedule  who is asked for which piece next (pure)         score     how well a peer has done
partial   a blob on its way to the disk                    messages  the wire, one parsing function a message
fetch     `Fetcher`: all of it over a `Caller`             transfers what is on its way, for people to see

What this does not protect against: peers see which blobs are asked for and shared; a blob's id says nothing about
whether its content is what its name claims (the model store's SHA-256 does); peers that lie cost time, one piece each.
"""

from shoal.mesh.content.fetch import Fetcher, Ground, Job
from shoal.mesh.content.library import Library, Shared
from shoal.mesh.content.manifest import Manifest, manifest_of
from shoal.mesh.content.transfers import Transfers

__all__ = ["Fetcher", "Ground", "Job", "Library", "Manifest", "Shared", "Transfers", "manifest_of"]
