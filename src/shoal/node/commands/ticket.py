"""`shoal ticket`: what another machine joins with."""

from __future__ import annotations

import typer

from shoal.core.errors import LocalError
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured


@configured()
def ticket(loaded: Loaded) -> None:
    """Print the ticket of the node that runs here. Whoever has it is a member: send it privately."""
    from shoal.node.mesh_home import MeshHome

    text = MeshHome(loaded.config.home).ticket()
    if text is None:
        raise LocalError("no node of this home is in a mesh now; start one with `shoal up --share`")
    typer.echo(text)
