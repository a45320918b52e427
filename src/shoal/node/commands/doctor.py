"""`shoal doctor`: what this machine can do, and what to change."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.node.config_sources import Loaded
from shoal.node.flags import UrlKey, configured
from shoal.node.mesh_client import NodeUrl, ask, place
from shoal.node.terminal import write_json, write_table

if TYPE_CHECKING:
    from shoal.node.doctor import Check

Net = Annotated[bool, typer.Option("--net", help="How the running node reaches peers; with --ticket, try it anew.")]


@configured("model", "device", "kernels", "threads", "host", "port", "api_keys", "tickets", "relays", "mesh_host")
def doctor(
    loaded: Loaded,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    net: Net = False,
    url: NodeUrl = None,
    url_key: UrlKey = None,
) -> None:
    """Look at this machine, or with --net at its mesh. Exit code 1 if something keeps Shoal from serving."""
    from shoal.node.doctor import can_serve

    checks = _net(loaded, url, url_key) if net else _machine(loaded)
    if as_json:
        write_json({"can_serve": can_serve(checks), "checks": [asdict(check) for check in checks]})
    else:
        write_table(
            ("", "check", "found", "what to change"),
            [(item.status, item.name, item.found, item.advice) for item in checks],
        )
    if not can_serve(checks):
        raise typer.Exit(1)


def _machine(loaded: Loaded) -> tuple[Check, ...]:
    from shoal.node.doctor import diagnose
    from shoal.node.machine import look

    return diagnose(look(loaded.config), loaded.config)


def _net(loaded: Loaded, url: str | None, key: str | None) -> tuple[Check, ...]:
    """What a node of a few seconds finds in the mesh of --ticket; else what the running node knows."""
    if loaded.config.tickets:
        from shoal.node.net_doctor import diagnose_network
        from shoal.node.network import look_at_network

        return diagnose_network(asyncio.run(look_at_network(loaded.config)))
    from shoal.node.doctor_net import diagnose_net

    return diagnose_net(asyncio.run(ask(place(loaded.config, url, key), "GET", "/mesh", None)))
