"""`shoal relay`: carry packets between peers that cannot connect directly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import say

if TYPE_CHECKING:
    from shoal.mesh.relay import RelayConfig

Host = Annotated[str, typer.Option("--relay-host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--relay-port", min=0, max=65535, help="Port; 0: any free one.")]
Allow = Annotated[list[str] | None, typer.Option("--allow", help="Id of a peer that may use it; none: everybody.")]
Token = Annotated[str | None, typer.Option("--relay-token", help="What every client must present.")]
Certificate = Annotated[Path | None, typer.Option("--certificate", help="PEM file, for https.")]
Key = Annotated[Path | None, typer.Option("--private-key", help="PEM file, for https.")]
Rate = Annotated[float, typer.Option("--client-rate", min=0.001, help="Megabytes a second one client may send.")]
Most = Annotated[int, typer.Option("--max-clients", min=1, help="Connections at once.")]


@configured()
def relay(
    loaded: Loaded,
    host: Host = "0.0.0.0",  # noqa: S104  a relay serves the network
    port: Port = 3340,
    allow: Allow = None,
    relay_token: Token = None,
    certificate: Certificate = None,
    private_key: Key = None,
    client_rate: Rate = 32.0,
    max_clients: Most = 2048,
) -> None:
    """Run a relay. It sees who talks to whom and how much, never what: packets are encrypted end to end."""
    from shoal.mesh.peer_id import PeerId
    from shoal.mesh.relay import RelayConfig, RelayLimits

    limits = RelayLimits(clients=max_clients, bytes_per_s=client_rate * 1e6)
    allowed = frozenset(PeerId.parse(text) for text in allow) if allow else None
    asyncio.run(_relay(RelayConfig(host, port, allowed, relay_token, certificate, private_key, limits)))


async def _relay(config: RelayConfig) -> None:
    from shoal.mesh.relay import RelayServer
    from shoal.node.serving import stopping

    server = await RelayServer.start(config)
    say(f"relaying at {server.url}; peers use it with --relay {server.url}; Ctrl-C stops")
    try:
        with stopping() as state:
            await state.event.wait()
    finally:
        await server.close()
        say(f"relayed: {server.stats()}")
