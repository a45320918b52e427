"""`shoal ping` and `shoal trace`: round trips to a peer, and every step of reaching it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from shoal.node.config_sources import Loaded
from shoal.node.flags import UrlKey, configured
from shoal.node.mesh_client import NodeUrl, ask, place
from shoal.node.mesh_text import path_text, ping_text

Peer = Annotated[str, typer.Argument(metavar="PEER", help="Its id, or the beginning of it.")]


@configured("host", "port", "api_keys")
def ping(loaded: Loaded, peer: Peer, url: NodeUrl = None, url_key: UrlKey = None) -> None:
    """Ask a peer of the running node for a sign of life, connecting first where needed."""
    _show(loaded, peer, url, url_key, with_steps=False)


@configured("host", "port", "api_keys")
def trace(loaded: Loaded, peer: Peer, url: NodeUrl = None, url_key: UrlKey = None) -> None:
    """As ping, with every step of connecting and how it ended."""
    _show(loaded, peer, url, url_key, with_steps=True)


def _show(loaded: Loaded, peer: str, url: str | None, key: str | None, with_steps: bool) -> None:
    found: dict[str, Any] = asyncio.run(ask(place(loaded.config, url, key), "POST", "/mesh/ping", {"peer": peer}))
    typer.echo(path_text(found["peer"]))
    if with_steps:
        for step in found["peer"]["steps"]:
            typer.echo(f"  tried: {step}")
    typer.echo(ping_text(found))
    if found["failure"]:
        raise typer.Exit(1)
