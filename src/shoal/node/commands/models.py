"""`shoal models list | pull | rm | info`: what is in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from shoal.core.units import format_size
from shoal.models.catalogue import CATALOGUE, check_name, default_name, parse_source
from shoal.models.store import Record, Store
from shoal.node.config_sources import Loaded
from shoal.node.fetch import fetch
from shoal.node.flags import configured
from shoal.node.terminal import say, write_json, write_table

app = typer.Typer(help="List, pull, remove and inspect models.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Name = Annotated[str, typer.Argument(help="A stored model's name.")]


@app.command("list")
@configured()
def list_models(loaded: Loaded, as_json: AsJson = False) -> None:
    """Models in the store, and those Shoal knows how to pull."""
    records = Store(loaded.config.home).records()
    stored = {record.name for record in records}
    known = [entry for entry in CATALOGUE if entry.name not in stored]
    if as_json:
        write_json({"stored": [asdict(item) for item in records], "known": [item.name for item in known]})
        return
    rows: list[tuple[str, ...]] = [
        (item.name, format_size(item.size_bytes), item.format, item.source) for item in records
    ]
    rows += [(item.name, format_size(item.source.member_size_bytes), "not pulled", item.summary) for item in known]
    write_table(("name", "size", "kind", "from"), rows)


@app.command("pull")
@configured()
def pull_model(
    loaded: Loaded,
    source: Annotated[str, typer.Argument(help="Catalogue name, hf:owner/name[@revision][:file], file or folder.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it in the store.")] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy a local file or folder instead of referring to it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a stored model of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model into the store: checked, then there in one step."""
    parsed = parse_source(source, copy)
    chosen = check_name(name) if name else default_name(source, parsed)
    store = Store(loaded.config.home)
    record = fetch(store, chosen, source, parsed, force)
    if as_json:
        write_json(_shown(store, record))
        return
    say(f"{record.name} is in the store: {store.path(record)} ({format_size(record.size_bytes)})")


@app.command("rm")
@configured()
def remove_model(loaded: Loaded, name: Name) -> None:
    """Take a model out of the store. Weights that were not copied stay where they are."""
    record = Store(loaded.config.home).remove(name)
    say(f"{record.name} is removed")


def _shown(store: Store, record: Record) -> dict[str, object]:
    return {**asdict(record), "path": str(store.path(record))}
