"""The mesh as the API and Prometheus show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from shoal.core.service import DecisionView, MeshView, PeerView, TransferView
from shoal.server import create_app

Ask = Callable[..., httpx.Response]
VIEW = MeshView(
    "me",
    "swarm",
    "cone: 2 observers saw it; all is well",
    relays=("https://relay.test",),
    transfers=(
        TransferView("a", 1, 5, 2),
        TransferView("b", 2, 5, 1, "up", 9.0),
        TransferView("c", 1, 1, 1, outcome="done"),
    ),
    transfers_ended={"down done": 1},
    transferred_bytes={"up": 2},
    peers=(
        PeerView("them", "connected", "quic", "punched", rtt_s=0.02, bytes_sent=7, given=3),
        PeerView("gone", "gone"),
    ),
    decisions=(DecisionView("r1", "them", "rtt 0.02 s", "answered", 12, 5.0),),
    asked={"peer answered": 4, "local failed": 1},
)


def test_a_node_alone_says_so(ask: Ask) -> None:
    body = ask("GET", "/v1/mesh").json()
    assert (body["id"], body["peers"], body["sharing"]) == ("", [], "private")
    assert "shoal:mesh_peers" not in ask("GET", "/metrics").text


def test_the_view_and_its_metrics(ask: Ask, make_service: Callable[..., Any]) -> None:
    service = make_service(mesh=lambda: VIEW)
    body = ask("GET", "/v1/mesh", app=create_app(service)).json()
    assert body["peers"][0]["path"] == "punched"
    assert body["decisions"][0]["why"] == "rtt 0.02 s"
    text = ask("GET", "/metrics", app=create_app(service)).text
    for line in (
        'shoal:mesh_peers{path="punched",state="connected"} 1.0',
        'shoal:mesh_rtt_seconds{peer="them"} 0.02',
        'shoal:mesh_sent_bytes_total{peer="them"} 7.0',
        'shoal:mesh_tokens_given_total{peer="them"} 3.0',
        'shoal:route_asked_total{kind="peer",outcome="answered"} 4.0',
        'shoal:mesh_info{nat="cone",sharing="swarm"} 1.0',
        "shoal:mesh_relays 1.0",
        'shoal:mesh_transfers{direction="down"} 1.0',
        'shoal:mesh_transfer_done_bytes{direction="up"} 2.0',
        'shoal:mesh_transfer_size_bytes{direction="down"} 5.0',
        'shoal:mesh_transfer_bytes_per_second{direction="up"} 9.0',
        'shoal:mesh_transfers_ended_total{direction="down",outcome="done"} 1.0',
        'shoal:mesh_transferred_bytes_total{direction="up"} 2.0',
    ):
        assert line in text
