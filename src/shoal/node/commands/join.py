"""`shoal join`: serve as `up` does, in somebody's mesh."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

import typer

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.node.commands.up import run
from shoal.node.config import NO_MODEL
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, MESH, SERVER, configured
from shoal.node.terminal import say

TicketText = Annotated[str, typer.Argument(metavar="TICKET", help="What `shoal up --share` printed, or @FILE with it.")]


@configured(*ENGINE, *SERVER, *MESH)
def join(loaded: Loaded, ticket: TicketText) -> None:
    """Join the mesh of TICKET and serve from both ends. In a private swarm its members may use this machine's model."""
    from shoal.node.mesh_home import read_tickets

    try:
        config, secret = loaded.config, read_tickets([ticket], time.time())[0].secret
    except InvalidRequest as error:
        raise BadConfig("TICKET", str(error)) from None
    if loaded.origins["share"] == "default" and secret is not None:
        if config.model != NO_MODEL:
            say("members of this swarm may use this machine's model; --private changes that")
        config = replace(config, share=True, share_with="swarm")
    run(replace(config, tickets=(*config.tickets, ticket)))
