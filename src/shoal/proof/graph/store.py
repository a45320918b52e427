"""Graphs on disk and their digest: `graph.json` for people and machines, `weights.npz` and `constants.npz` for the
numbers. A graph whose weights are behind a commitment is read without them.

The digest covers the canonical JSON and every array's shape and little-endian bytes, so it does not depend on how the
npz was packed. Reading trusts nothing: every field is checked before it is used.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from shoal.core.errors import BadWeights
from shoal.crypto.hashes import hasher
from shoal.proof.circuit import Index
from shoal.proof.graph.check import check_graph
from shoal.proof.graph.ir import (
    Affine,
    Contract,
    Graph,
    Ints,
    InverseRoot,
    Node,
    Operator,
    Requantize,
    Reshape,
    Softmax,
    Table,
    Tensor,
    compact,
)

FORMAT = "shoal integer graph 1"
FILES = {"constants.npz": False, "weights.npz": True}
"""File -> whether it holds the weights."""
OPERATORS: dict[str, type[Operator]] = {
    kind.__name__: kind for kind in (Contract, Affine, Reshape, Requantize, Table, Softmax, InverseRoot)
}


def digest(graph: Graph) -> bytes:
    """32 bytes that change with anything the graph says."""
    state = hasher("shoal integer graph v1")
    described = to_json(graph).encode()
    state.update(len(described).to_bytes(8, "little") + described)
    for name in sorted(graph.arrays):
        array = np.ascontiguousarray(graph.arrays[name], graph.arrays[name].dtype.newbyteorder("<"))
        state.update(array.tobytes())
    return bytes(state.digest())


def without_weights(graph: Graph) -> Graph:
    """The graph as it is known to who has only a digest or a commitment of its weights."""
    kept = {name: array for name, array in graph.arrays.items() if graph.tensors[name].role != "weight"}
    return replace(graph, arrays=kept)


def save(graph: Graph, folder: Path) -> None:
    """Writes `graph.json`, `constants.npz` and `weights.npz` into the folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_text(to_json(graph))
    for file, are_weights in FILES.items():
        numbered: dict[str, Any] = {
            f"a{place}": graph.arrays[name]
            for place, name in enumerate(sorted(graph.arrays))
            if (graph.tensors[name].role == "weight") == are_weights
        }
        np.savez(folder / file, **numbered)


def load(folder: Path, with_weights: bool = True) -> Graph:
    """The graph in a folder. BadWeights names file, field, what was expected and what was found."""
    file = folder / "graph.json"
    try:
        described = json.loads(file.read_text())
        arrays: dict[str, Ints] = {}
        for name, are_weights in FILES.items():
            if with_weights or not are_weights:
                arrays |= _arrays(folder / name, described, are_weights)
        return check_graph(_graph(described, arrays), with_weights)
    except BadWeights:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise BadWeights(str(file), "graph", f"what `save` writes ({FORMAT})", found) from error


def to_json(graph: Graph) -> str:
    """Canonical: sorted keys, one spelling, no spaces. Arrays are listed with type and shape."""
    described = {
        "format": FORMAT,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "tensors": {name: _plain(tensor) for name, tensor in graph.tensors.items()},
        "nodes": [{**_plain(node), "operator": _operator(node.operator)} for node in graph.nodes],
        "arrays": {name: [array.dtype.str.lstrip("<>|="), array.shape] for name, array in graph.arrays.items()},
    }
    return json.dumps(described, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Dataclasses as maps, tuples as lists."""
    if isinstance(value, Tensor | Node | Index | Operator):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _operator(operator: Operator) -> dict[str, Any]:
    return {"kind": type(operator).__name__, **_plain(operator)}


# ---- reading


def _arrays(file: Path, described: dict[str, Any], are_weights: bool) -> dict[str, Ints]:
    listed, tensors = described["arrays"], described["tensors"]
    arrays: dict[str, Ints] = {}
    with np.load(file, allow_pickle=False) as stored:
        for place, name in enumerate(sorted(listed)):
            if (tensors[name]["role"] == "weight") != are_weights:
                continue
            kind, shape = listed[name]
            array = stored[f"a{place}"]
            if (
                array.dtype.str.lstrip("<>|=") != kind
                or list(array.shape) != shape
                or compact(array).dtype != array.dtype
            ):
                raise BadWeights(
                    str(file), name, f"{kind} of {shape}, the narrowest type", f"{array.dtype} of {array.shape}"
                )
            arrays[name] = array
    return arrays


def _graph(described: dict[str, Any], arrays: dict[str, Ints]) -> Graph:
    if described["format"] != FORMAT:
        raise BadWeights("graph.json", "format", FORMAT, str(described["format"]))
    tensors = {name: Tensor(**_tuples(entry)) for name, entry in described["tensors"].items()}
    nodes = tuple(_node(entry) for entry in described["nodes"])
    return Graph(tensors, nodes, tuple(described["inputs"]), tuple(described["outputs"]), arrays)


def _node(entry: dict[str, Any]) -> Node:
    operator = dict(entry["operator"])
    kind = OPERATORS[operator.pop("kind")]
    return Node(entry["name"], kind(**_tuples(operator)), tuple(entry["inputs"]), entry["output"])


def _tuples(value: Any) -> Any:
    """Lists as tuples, maps that look like an Index as one."""
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    if isinstance(value, dict):
        inner = {key: _tuples(entry) for key, entry in value.items()}
        return Index(**inner) if inner.keys() == {entry.name for entry in fields(Index)} else inner
    return value
