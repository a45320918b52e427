"""Graphs come back from disk as they were; the digest sees every change; broken files say what is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import BadWeights
from shoal.proof.circuit import Index
from shoal.proof.graph.check import check_graph
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


def test_what_means_nothing_is_refused(graph: Graph) -> None:
    """One fault at a time in a graph that is right: each is named."""
    assert check_graph(graph) is graph
    by_kind = {type(node.operator).__name__: place for place, node in enumerate(graph.nodes)}

    def with_node(kind: str, **changes: object) -> Graph:
        place = by_kind[kind]
        node = graph.nodes[place]
        own = {name: value for name, value in changes.items() if name in ("inputs", "output")}
        rest = {name: value for name, value in changes.items() if name not in own}
        other = replace(node, operator=replace(node.operator, **rest), **own)  # type: ignore[arg-type]
        return replace(graph, nodes=(*graph.nodes[:place], other, *graph.nodes[place + 1 :]))

    def with_tensor(name: str, **changes: object) -> Graph:
        return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], **changes)})  # type: ignore[arg-type]

    wrong = [
        with_node("Contract", inputs=("tokens",)),
        with_node("Contract", inputs=("logits", "logits")),
        with_node("Contract", left=(Index(),) * 7),
        with_node("Affine", output="tokens"),
        with_node("Requantize", shift=-1),
        with_node("Requantize", low=1 << 40),
        with_node("Table", values="tokens"),
        with_node("Softmax", one=3),
        with_node("Softmax", values="embedding"),
        with_node("InverseRoot", mantissa=9),
        with_tensor("tokens", role="weight"),
        with_tensor("embedding", shape=(1, 2)),
        with_tensor("logits", shape=(0,)),
        with_tensor("logits", high=1 << 70),
        with_tensor("logits", fraction=0.5),
        replace(graph, outputs=("nothing",)),
        replace(graph, outputs=()),
        replace(graph, nodes=graph.nodes[::-1]),
    ]
    for fault in wrong:
        with pytest.raises(BadWeights, match=r"graph\.json"):
            check_graph(fault)
