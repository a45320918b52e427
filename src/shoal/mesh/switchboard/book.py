"""Where peers may be reached: claims with a source and an age, and endpoints that have worked, which come first."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.mesh.address import Address
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId

MAX_PEERS = 20_000
MAX_AGE_S = 24 * 3600.0
_KIND = {"tcp": "tcp", "quic": "udp", "memory": "udp"}
"""Which kind of hint a carrier's direct remote is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`proven` has worked; `claimed` was said by `source` ("ticket", "lan", "dht", ...) at `heard` (monotonic)."""

    claimed: Address
    proven: Address
    source: str
    heard: float


class AddressBook:
    """Bounded: beyond MAX_PEERS the one heard of longest ago is forgotten."""

    def __init__(self, max_peers: int = MAX_PEERS, max_age_s: float = MAX_AGE_S) -> None:
        self._max_peers = max_peers
        self._max_age_s = max_age_s
        self._entries: dict[PeerId, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, address: Address, source: str, now: float) -> bool:
        """Whether this says anything new."""
        entry = self.entry(address.peer, now)
        claimed = entry.claimed.merged(address) if entry else address
        proven = entry.proven if entry else Address(address.peer)
        self._put(address.peer, Entry(claimed, proven, source, now))
        return entry is None or set(_hints(claimed)) != set(_hints(entry.claimed))

    def worked(self, peer: PeerId, info: LinkInfo, now: float) -> None:
        """A dial has reached `peer` as `info` says: try that first next time."""
        entry = self.entry(peer, now) or Entry(Address(peer), Address(peer), "dial", now)
        kind = "relays" if info.path == "relayed" else _KIND.get(info.carrier)
        if kind is not None:
            found = Address(peer, **{kind: (info.remote,)})
            self._put(peer, Entry(entry.claimed, entry.proven.merged(found), entry.source, now))

    def entry(self, peer: PeerId, now: float) -> Entry | None:
        entry = self._entries.get(peer)
        if entry is not None and now - entry.heard > self._max_age_s:
            del self._entries[peer]
            return None
        return entry

    def address(self, peer: PeerId, now: float) -> Address:
        """All there is, what has worked first; empty for a stranger."""
        entry = self.entry(peer, now)
        return entry.claimed.merged(entry.proven) if entry else Address(peer)

    def _put(self, peer: PeerId, entry: Entry) -> None:
        self._entries.pop(peer, None)
        self._entries[peer] = entry
        if len(self._entries) > self._max_peers:
            del self._entries[next(iter(self._entries))]


def _hints(address: Address) -> tuple[str, ...]:
    return address.udp + address.tcp + address.relays
