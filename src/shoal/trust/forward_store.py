"""A folder with the integer graph of a checkpoint for prompts of one length, and what it says it was made from.

    graph.json, weights.npz, constants.npz   `proof.graph.store`
    about.json                               model, SHA-256 of its weights, tokens, digest of the graph

What this does not protect against: a folder that lies. That the graph is of these weights is the word of whoever made
the folder: take it from somebody trusted, or make it again from the checkpoint and compare the digests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import BadWeights
from shoal.proof.graph import store
from shoal.proof.graph.ir import Graph
from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.transformer.forward import TOKENS, check_model

FORMAT = "shoal forward graph 1"
ABOUT = "about.json"
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class About:
    """model: a name for people. weights: SHA-256 as receipts have it. tokens: of every prompt. graph: its digest."""

    model: str
    weights: bytes
    tokens: int
    graph: bytes


def save_forward(folder: Path, graph: Graph, model: str, weights: bytes) -> About:
    """Writes the folder, which is made if need be."""
    about = About(model, weights, graph.tensors[TOKENS].shape[0], store.digest(graph))
    store.save(graph, folder)
    said = {"model": model, "weights": weights.hex(), "tokens": about.tokens, "graph": about.graph.hex()}
    (folder / ABOUT).write_text(json.dumps({"format": FORMAT, **said}, indent=1) + "\n")
    return about


def read_about(folder: Path) -> About:
    """What the folder says of itself, without a look at the graph. BadWeights for what is no such folder."""
    file = folder / ABOUT
    try:
        said = json.loads(file.read_text())
        weights, digest = (bytes.fromhex(said[name]) for name in ("weights", "graph"))
        about = About(str(said["model"]), weights, said["tokens"], digest)
        is_whole = said["format"] == FORMAT and len(weights) == len(digest) == DIGEST_BYTES
        if not is_whole or type(about.tokens) is not int:
            raise ValueError("other values")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise BadWeights(str(file), "file", f"what `shoal prove graph` writes ({FORMAT})", found) from error
    return about


def load_forward(folder: Path) -> tuple[About, Lowered]:
    """The graph with its circuit. BadWeights where it is not the one that about.json names."""
    about, graph = read_about(folder), store.load(folder)
    check_model(graph)
    if (found := store.digest(graph)) != about.graph:
        raise BadWeights(str(folder), "graph", about.graph.hex(), found.hex())
    if (tokens := graph.tensors[TOKENS].shape[0]) != about.tokens:
        raise BadWeights(str(folder), "tokens", str(about.tokens), str(tokens))
    return about, lower(graph)
