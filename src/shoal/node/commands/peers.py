"""`shoal peers`: whom the running node knows, how it is connected, and what failed."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from shoal.node.config_sources import Loaded
from shoal.node.flags import UrlKey, configured
from shoal.node.mesh_client import NodeUrl, ask, place
from shoal.node.mesh_text import peers_table, peers_why

PIPED_WIDTH = 200
AsJson = Annotated[bool, typer.Option("--json", help="Everything, as the API gives it.")]


@configured("host", "port", "api_keys")
def peers(loaded: Loaded, url: NodeUrl = None, url_key: UrlKey = None, as_json: AsJson = False) -> None:
    """Show the peers of the node that runs here: link, round trip, models, and why one cannot be reached."""
    view: dict[str, Any] = asyncio.run(ask(place(loaded.config, url, url_key), "GET", "/mesh", None))
    if as_json:
        typer.echo(json.dumps(view, indent=2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)  # a file has no edge to wrap at
    console.print(peers_table(view))
    for line in peers_why(view):
        typer.echo(line)
