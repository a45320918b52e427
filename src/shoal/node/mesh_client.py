"""Asking the node that runs here about its mesh, over its own API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from shoal.node.config import NodeConfig
from shoal.node.remote import Server, exchange_json

NodeUrl = Annotated[str | None, typer.Option("--url", help="The node to ask; else the one of this configuration.")]


def place(config: NodeConfig, url: str | None, key: str | None) -> Server:
    """The node at `url`, or the one that this configuration starts."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104  compared, not bound
    own = config.api_keys[0] if config.api_keys and url is None else None
    return Server(url or f"http://{f'[{host}]' if ':' in host else host}:{config.port}", key or own)


async def ask(server: Server, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """LocalError where nobody answers, the server's own error where it refuses."""
    return await asyncio.wait_for(exchange_json(server, method, path, body), 120)
