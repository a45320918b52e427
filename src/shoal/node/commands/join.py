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

TicketText = Annotated[str, typer.Argument(metavar="TICKET", help="The line that `shoal up --share` printed.")]


@configured(*ENGINE, *SERVER, *MESH)
def join(loaded: Loaded, ticket: TicketText) -> None:
    """Join the mesh of TICKET and serve from both ends. In a private swarm its members may use this machine's model."""
    from shoal.mesh.ticket import parse_ticket

    try:
        config, secret = loaded.config, parse_ticket(ticket, time.time()).secret
    except InvalidRequest as error:
        raise BadConfig("TICKET", str(error)) from None
    if loaded.origins["share"] == "default" and secret is not None:
        if config.model != NO_MODEL:
            say("members of this swarm may use this machine's model; --private changes that")
        config = replace(config, share=True, share_with="swarm")
    run(replace(config, tickets=(*config.tickets, ticket)))
