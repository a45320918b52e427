"""What peers call their models and why a link ended, on a terminal."""

from __future__ import annotations

import io
from dataclasses import asdict

from rich.console import Console

from shoal.core.service import MeshView, PeerView, TransferView
from shoal.node.mesh_text import peers_table, peers_why

EVIL = "\x1b]0;owned\x07[/bold][link=http://evil]tiny"


def test_words_of_peers_neither_steer_the_terminal_nor_break_the_table() -> None:
    peer = PeerView("a" * 52, "waiting", models=(EVIL,), failure=f"closed: {EVIL}", steps=(EVIL,))
    view = asdict(MeshView("b" * 52, "public", peers=(peer,)))
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(peers_table(view))
    shown = out.getvalue()
    assert "]0;owned\ufffd[/bold]" in shown
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "\x1b" not in "".join(peers_why(view))


def test_files_on_their_way_are_said_while_they_are() -> None:
    transfers = (
        TransferView("w", 41_000_000, 82_000_000, 1, "down", 2e6),
        TransferView("v", 5, 10, 2, "up", 1.0),
        TransferView("u", 0, 0, 0),
        TransferView("gone", 1, 2, 1, outcome="cancelled"),
    )
    assert list(peers_why(asdict(MeshView("b" * 52, "public", transfers=transfers)))) == [
        "fetching w: 41.0 MB of 82.0 MB, 2.0 MB/s, from 1 peer",
        "giving v: 5 B of 10 B, 1 B/s, to 2 peers",
        "fetching u: looking for it",
    ]
