"""The tree of commands, and the two options that belong to all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal import __version__
from shoal.node.commands import (
    attest,
    bench,
    chat,
    check,
    config,
    doctor,
    draft,
    ipw,
    join,
    models,
    peers,
    ping,
    prove,
    prove_answer,
    receipt,
    relay,
    run,
    swarm,
    ticket,
    tune,
    up,
    water,
)

app = typer.Typer(
    name="shoal",
    help="Serve, chat with and inspect language models on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"shoal {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Serve, chat with and inspect language models on this machine."""
    # Both are handled before this runs: --version by its callback, --debug by `main`, anywhere on the line.


for command in (
    up.up,
    join.join,
    peers.peers,
    ping.ping,
    ping.trace,
    relay.relay,
    ticket.ticket,
    chat.chat,
    run.run,
    swarm.swarm,
    bench.bench,
    check.check,
    tune.tune,
    doctor.doctor,
    water.water,
    ipw.ipw,
    config.config,
):
    app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(draft.app, name="draft")
app.add_typer(attest.app, name="attest")
app.add_typer(receipt.app, name="receipt")
prove.app.command("graph")(prove_answer.graph)
prove.app.command("answer")(prove_answer.answer)
app.add_typer(prove.app, name="prove")
