"""Graphs come back from disk as they were; the digest sees every change; broken files say what is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import BadWeights
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ir import Graph, Requantize
from shoal.proof.graph.store import digest, load, save, to_json
from shoal.proof.transformer.build import transformer_graph
from shoal.proof.transformer.config import TransformerConfig
from shoal.proof.transformer.reference import Reference
from shoal.proof.transformer.scales import Scales


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A graph that has every operator."""
    config = TransformerConfig(1, 8, 2, 1, 4, 8, 11)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=shape) for name, shape in config.shapes().items()}
    reference = Reference(config, weights)
    reference.logits([1, 2, 3])
    return transformer_graph(config, weights, 3, Scales(reference.largest, bits=10, table_bits=10, mantissa=8, one=10))


def test_a_graph_comes_back_as_it_was(graph: Graph, tmp_path: Path) -> None:
    save(graph, tmp_path)
    again = load(tmp_path)
    assert (again.tensors, again.nodes, again.inputs, again.outputs) == (
        graph.tensors,
        graph.nodes,
        graph.inputs,
        graph.outputs,
    )
    assert {type(node.operator).__name__ for node in graph.nodes} == {
        "Contract", "Affine", "Reshape", "Requantize", "Table", "Softmax", "InverseRoot",
    }  # fmt: skip
    assert digest(again) == digest(graph)
    tokens = {"tokens": np.array([1, 2, 3])}
    assert np.array_equal(run(again, tokens)["logits"], run(graph, tokens)["logits"])


def test_every_change_changes_the_digest(graph: Graph) -> None:
    seen = {digest(graph)}
    for place, node in enumerate(graph.nodes):
        if isinstance(node.operator, Requantize):
            other = replace(node, operator=replace(node.operator, high=node.operator.high + 1))
            seen.add(digest(replace(graph, nodes=(*graph.nodes[:place], other, *graph.nodes[place + 1 :]))))
    for name, array in graph.arrays.items():
        changed = array.copy()
        changed.reshape(-1)[-1] ^= 1
        seen.add(digest(replace(graph, arrays={**graph.arrays, name: changed})))
    for name, tensor in graph.tensors.items():
        seen.add(digest(replace(graph, tensors={**graph.tensors, name: replace(tensor, fraction=tensor.fraction + 1)})))
    requantized = sum(isinstance(node.operator, Requantize) for node in graph.nodes)
    assert len(seen) == 1 + requantized + len(graph.arrays) + len(graph.tensors)


def test_broken_files_say_what_is_broken(graph: Graph, tmp_path: Path) -> None:
    save(graph, tmp_path)
    whole = json.loads(to_json(graph))
    for change in (
        {"format": "another 1"},
        {"nodes": [{}]},
        {"tensors": {"x": {"shape": [1]}}},
        {"arrays": {"x": ["i1", [1]]}},
    ):
        (tmp_path / "graph.json").write_text(json.dumps({**whole, **change}))
        with pytest.raises(BadWeights, match="expected"):
            load(tmp_path)
    (tmp_path / "graph.json").write_text(to_json(graph)[:-9])
    with pytest.raises(BadWeights, match="expected"):
        load(tmp_path)
