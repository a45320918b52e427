"""What peers call their models and why a link ended, on a terminal."""

from __future__ import annotations

import io
from dataclasses import asdict

from rich.console import Console

from shoal.core.service import MeshView, PeerView
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
