"""`shoal doctor`: what this machine can do, and what to change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import write_json, write_table


@configured("model", "device", "kernels", "threads", "host", "port", "api_keys")
def doctor(loaded: Loaded, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Look at this machine. Exit code 1 if something keeps Shoal from serving."""
    from shoal.node.doctor import can_serve, diagnose
    from shoal.node.machine import look

    checks = diagnose(look(loaded.config), loaded.config)
    if as_json:
        write_json({"can_serve": can_serve(checks), "checks": [asdict(check) for check in checks]})
    else:
        write_table(
            ("", "check", "found", "what to change"),
            [(item.status, item.name, item.found, item.advice) for item in checks],
        )
    if not can_serve(checks):
        raise typer.Exit(1)
