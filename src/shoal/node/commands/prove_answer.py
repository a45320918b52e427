"""`shoal prove graph | answer`: proofs of single tokens of an answer, which `shoal check --tier proof` reads.

Exit codes: 0 done, 2 unusable. What it costs: docs/proofs.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.core.errors import BadConfig
from shoal.node.commands.prove import check_writable, unusable
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import say, write

if TYPE_CHECKING:
    from shoal.proof.lower.lower import Lowered
    from shoal.proof.transformer.forward import Forward
    from shoal.trust.forward_store import About


@configured()
def graph(
    loaded: Loaded,
    model: Annotated[str, typer.Argument(help="A GGUF file, a folder or a name; a plain Llama.")],
    tokens: Annotated[int, typer.Option(min=1, max=4096, help="Of the prompt, and of the answer before the position.")],
    like: Annotated[Path, typer.Option(help="Sets the ranges: an answer with its receipt and opening, or plain text.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Turn a model into an integer graph of a forward pass over so many tokens: both sides of a proof need the same.

    The same model and --like give the same graph. Takes seconds for the default model.
    """
    from shoal.models.digest import hash_weights
    from shoal.models.store import Store
    from shoal.node.fetch import ensure_model
    from shoal.node.forwards import graph_of
    from shoal.node.progress import step_bar
    from shoal.trust.forward_store import save_forward

    with unusable("graph"), step_bar() as bar:
        check_writable(out)
        config = replace(loaded.config, model=model)
        ensure_model(config)
        path = Store(config.home).resolve(model)
        made = graph_of(path, tokens, like, bar)
        about = save_forward(out, made, path.name, bytes.fromhex(hash_weights(path)))
        bar("graph", 3, 3, "")
    write(f"{out}: graph {about.graph.hex()}, {tokens} tokens, of the weights {about.weights.hex()}\n")


@configured()
def answer(
    loaded: Loaded,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An answer with its receipt and opening.")],
    graph: Annotated[Path, typer.Option(help="What `shoal prove graph` wrote.")],
    position: Annotated[int, typer.Option(min=0, help="Of the token in the answer, from 0.")],
    out: Annotated[Path, typer.Option(help="Where to write the proof.")],
    choice: Annotated[int, typer.Option(min=0, help="Of an answer with several.")] = 0,
) -> None:
    """Prove what the model makes likeliest at one position of an answer. The proof shows prompt and answer so far.

    For one token of the default model: 5 CPU-seconds and 1 GB after 8 tokens, 22 CPU-seconds and 4.7 GB after 64, on
    two cores up to a minute with other work; a proof of 1 to 3 MB. An answer of 100 tokens takes a hundred of them.
    """
    from shoal.node.forwards import answer_in, place_in
    from shoal.node.progress import step_bar
    from shoal.proof.transformer.forward import prove_forward
    from shoal.trust.forward_store import load_forward, read_about

    with unusable("answer"), step_bar() as bar:
        check_writable(out)
        about = read_about(graph)
        before, token = place_in(answer_in(file), about.weights, choice, position)
        if len(before) != about.tokens:
            told = f"this position comes after {len(before)} tokens, the graph is for {about.tokens}"
            raise BadConfig("--graph", f"{told}; make one with `shoal prove graph MODEL --tokens {len(before)}`")
        bar("prove", 0, 2, "graph")
        about, model = load_forward(graph)
        bar("prove", 1, 2, "proof")
        made = prove_forward(model, before)
        out.write_bytes(made.to_bytes())
        bar("prove", 2, 2, "")
    _told(out, about, model, made, token)


def _told(out: Path, about: About, model: Lowered, made: Forward, token: int) -> None:
    from shoal.proof.transformer.forward import LOGITS

    write(f"{out}: {len(made.proof):,} bytes, graph {about.graph.hex()}, likeliest token {made.next_token}\n")
    if made.next_token != token:
        behind = int(made.logits.max()) - int(made.logits[token]) if token < len(made.logits) else float("inf")
        nats = behind * 2.0 ** -model.graph.tensors[LOGITS].fraction
        say(f"the answer has token {token} there, {nats:.3g} nats behind: this proof does not show that it is right")
