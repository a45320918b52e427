"""`shoal config`: every value in force, and where it came from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shoal.node.config import OPTIONS
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, SERVER, configured
from shoal.node.terminal import write_json, write_table


@configured(*ENGINE, *SERVER)
def config(loaded: Loaded, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show each configuration value and where it came from: default, profile, file, environment or flag."""
    shown = {option.name: _shown(option.is_secret, getattr(loaded.config, option.name)) for option in OPTIONS}
    if as_json:
        write_json({name: {"value": value, "origin": loaded.origins[name]} for name, value in shown.items()})
        return
    write_table(("option", "value", "from"), [(name, _text(shown[name]), loaded.origins[name]) for name in shown])


def _shown(is_secret: bool, value: Any) -> Any:
    """Secrets are counted, never shown."""
    if not is_secret or value is None:
        return value
    if isinstance(value, str):
        return _hidden(value)
    return [_hidden(item) if isinstance(item, str) else f"{item[0]}={_hidden(item[1])}" for item in value]


def _hidden(text: str) -> str:
    return f"hidden ({len(text)} characters)"


def _text(value: Any) -> str:
    match value:
        case None:
            return "auto"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return ", ".join("=".join(item) if isinstance(item, tuple) else item for item in value) or "none"
        case _:
            return str(value)
