"""`shoal models list | pull | rm | info`: what is in the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.core.errors import BadConfig, BadWeights
from shoal.core.units import format_size
from shoal.models.catalogue import CATALOGUE, check_name, default_name, parse_source
from shoal.models.store import Record, Store
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import progress_bar, say, write_json, write_table

if TYPE_CHECKING:
    from shoal.models.describe import Description

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
@configured("tickets", "mesh_host", "relays")
def pull_model(
    loaded: Loaded,
    source: Annotated[str, typer.Argument(help="Catalogue name, hf:owner/name[@revision][:file], file or folder.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it in the store.")] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy a local file or folder instead of referring to it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a stored model of that name.")] = False,
    from_mesh: Annotated[bool, typer.Option("--from-mesh", help="Fetch it by name from peers that share it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model into the store: checked, then there in one step."""
    store = Store(loaded.config.home)
    if from_mesh:
        record = _pull_from_mesh(loaded, source, name, force)
    else:
        from shoal.node.fetch import fetch

        parsed = parse_source(source, copy)
        chosen = check_name(name) if name else default_name(source, parsed)
        record = fetch(store, chosen, source, parsed, force)
    path = store.path(record)
    if as_json:
        write_json({**asdict(record), "path": str(path)})
        return
    say(f"{record.name} is in the store: {path} ({format_size(record.size_bytes)})")
    _warn_if_foreign(path)


@app.command("rm")
@configured()
def remove_model(loaded: Loaded, name: Name) -> None:
    """Take a model out of the store. Weights that were not copied stay where they are."""
    record = Store(loaded.config.home).remove(name)
    say(f"{record.name} is removed")


@app.command("info")
@configured()
def show_model(
    loaded: Loaded,
    model: Annotated[str, typer.Argument(help="A stored model's name, a GGUF file or a folder.")],
    check: Annotated[
        bool, typer.Option("--check", help="Read every byte and compare it with the stored hash.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a model's network, tensors, tokenizer, template, hash and licence."""
    from shoal.models.describe import describe

    store = Store(loaded.config.home)
    path = store.resolve(model)
    record = next((item for item in store.records() if store.directory(item.name) / item.file == path), None)
    if check:
        _check(path, record)
    described = describe(path)
    if as_json:
        write_json({"path": str(path), "record": asdict(record) if record else None, **asdict(described)})
        return
    write_table(("", ""), [*_record_rows(path, record), *_rows(described)])


def _pull_from_mesh(loaded: Loaded, source: str, name: str | None, force: bool) -> Record:
    from shoal.node.mesh_pull import pull_from_mesh, wanted

    model = wanted(source)
    if not model.sha256:
        say(f"warning: no hash of {model.name!r} is known here: what comes is what the peers that share it agree on")
    with progress_bar() as progress:
        return pull_from_mesh(loaded.config, model, check_name(name) if name else model.name, force, progress)


def _warn_if_foreign(path: Path) -> None:
    """Said at once, not at the first `shoal up`: whole, but not a network this version knows."""
    from shoal.models.describe import describe

    try:
        describe(path)
    except BadWeights as error:
        say(f"warning: it cannot be served by this version of Shoal: {error}")


def _check(path: Path, record: Record | None) -> None:
    from shoal.models.digest import hash_weights

    if record is None:
        raise BadConfig("--check", f"{str(path)!r} is not in the store, so there is no hash to compare with")
    with progress_bar() as progress:
        found = hash_weights(path, progress)
    if found != record.sha256:
        raise BadWeights(str(path), "sha256", record.sha256, f"{found}; pull it again with --force")


def _record_rows(path: Path, record: Record | None) -> list[tuple[str, str]]:
    if record is None:
        return [("file", str(path))]
    licence = record.licence or "not stated"
    rows = (("name", record.name), ("file", str(path)), ("from", record.source), ("sha256", record.sha256))
    return [*rows, ("licence", licence)]


def _rows(found: Description) -> list[tuple[str, str]]:
    config, use = found.config, found.storages
    heads = f"{config.num_heads} heads, {config.num_kv_heads} for keys and values, of {config.head_dim}"
    experts = f", {config.experts_per_token} of {config.num_experts} experts" if config.num_experts else ""
    ends = " ".join(map(str, found.tokenizer.eos_ids))
    tools = "described to the model in text" if found.tools == "generic" else f"in the template ({found.tools})"
    return [
        ("title", found.title),
        ("family", config.family),
        ("parameters", f"{found.num_parameters:,}"),
        ("layers", f"{config.num_layers} of {config.hidden_size}, {config.ffn_size} inside{experts}"),
        ("attention", heads),
        ("context", f"{config.context_length:,} tokens"),
        ("size", f"{format_size(found.size_bytes)}, {found.quantization}"),
        *((f"  {item.storage}", f"{item.num_tensors} tensors, {format_size(item.size_bytes)}") for item in use),
        ("tokenizer", f"{found.tokenizer.vocab_size:,} tokens, from {found.tokenizer.source}; ends: {ends}"),
        ("template", "yes" if found.has_chat_template else "none: completion only"),
        ("tools", tools if found.has_chat_template else "none"),
    ]
