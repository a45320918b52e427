"""The mesh in Prometheus' words, read from `Service.mesh` at each scrape. Peers are labelled by their id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shoal.core.service import MeshView, PeerView, TransferView

MAX_PEERS = 256
"""Labelled one by one; a scrape stays small in a large mesh, and the totals cover all."""

COUNTERS: tuple[tuple[str, str, Callable[[PeerView], float]], ...] = (
    ("shoal:mesh_sent_bytes", "Bytes sent to a peer over its link.", lambda peer: peer.bytes_sent),
    ("shoal:mesh_received_bytes", "Bytes received from a peer over its link.", lambda peer: peer.bytes_received),
    ("shoal:mesh_tokens_given", "Tokens made here for a peer.", lambda peer: peer.given),
    ("shoal:mesh_tokens_received", "Tokens a peer made for this node.", lambda peer: peer.received),
)


class MeshCollector(Collector):
    def __init__(self, mesh: Callable[[], MeshView | None]) -> None:
        self._mesh = mesh

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        view = self._mesh()
        if view is None:
            return
        peers = GaugeMetricFamily("shoal:mesh_peers", "Peers known, by state and path.", labels=["state", "path"])
        for (state, path), count in Counter((peer.state, peer.path) for peer in view.peers).items():
            peers.add_metric([state, path], count)
        yield peers
        rtt = GaugeMetricFamily("shoal:mesh_rtt_seconds", "Round trip to a connected peer.", labels=["peer"])
        for peer in view.peers[:MAX_PEERS]:
            if peer.rtt_s is not None:
                rtt.add_metric([peer.id], peer.rtt_s)
        yield rtt
        yield from _place(view)
        for name, text, value in COUNTERS:
            family = CounterMetricFamily(name, text, labels=["peer"])
            for peer in view.peers[:MAX_PEERS]:
                family.add_metric([peer.id], value(peer))
            yield family
        asked = CounterMetricFamily("shoal:route_asked", "Providers asked.", labels=["kind", "outcome"])
        for key, count in view.asked.items():
            asked.add_metric(key.split(" ", 1), count)
        yield asked


def _place(view: MeshView) -> Iterator[Metric]:
    """How this node stands in its mesh, and what is on its way. The kind of NAT is its first word."""
    info = GaugeMetricFamily("shoal:mesh_info", "Who is served, and the kind of NAT.", labels=["sharing", "nat"])
    info.add_metric([view.sharing, view.nat.partition(":")[0] or "unknown"], 1)
    yield info
    yield GaugeMetricFamily("shoal:mesh_relays", "Relays this node can be reached through.", len(view.relays))
    yield from _transfers(view)


TRANSFERS: tuple[tuple[str, str, Callable[[TransferView], float]], ...] = (
    ("shoal:mesh_transfers", "Blobs on their way, down (to here) or up (to peers).", lambda item: 1),
    ("shoal:mesh_transfer_size_bytes", "Their sizes, together.", lambda item: item.size_bytes),
    ("shoal:mesh_transfer_done_bytes", "Of these bytes, those that have gone over.", lambda item: item.done_bytes),
    ("shoal:mesh_transfer_bytes_per_second", "How fast they move now, together.", lambda item: item.rate_bps),
)


def _transfers(view: MeshView) -> Iterator[Metric]:
    running = [item for item in view.transfers if not item.outcome]
    for name, text, value in TRANSFERS:
        gauge = GaugeMetricFamily(name, text, labels=["direction"])
        for direction in ("down", "up"):
            gauge.add_metric([direction], sum(value(item) for item in running if item.direction == direction))
        yield gauge
    moved = CounterMetricFamily("shoal:mesh_transferred_bytes", "Bytes of blobs, ever.", labels=["direction"])
    for direction, count in view.transferred_bytes.items():
        moved.add_metric([direction], count)
    yield moved
    ended = CounterMetricFamily("shoal:mesh_transfers_ended", "How they ended.", labels=["direction", "outcome"])
    for key, count in view.transfers_ended.items():
        ended.add_metric(key.split(" ", 1), count)
    yield ended
