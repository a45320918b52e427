"""The driver: a graph becomes a circuit, a run of the graph becomes the circuit's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.proof.bounds import check_bounds
from shoal.proof.circuit import Circuit, Expr
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ir import (
    Affine,
    Contract,
    Graph,
    Ints,
    InverseRoot,
    Node,
    Requantize,
    Reshape,
    Softmax,
    Table,
)
from shoal.proof.lower.contractions import lower_affine, lower_contract, lower_reshape
from shoal.proof.lower.emitter import Emitter, Fill, Known
from shoal.proof.lower.form import View, read_source
from shoal.proof.lower.functions import lower_inverse_root, lower_softmax, lower_table
from shoal.proof.lower.limbs import Plan, plan
from shoal.proof.lower.requantize import lower_requantize
from shoal.proof.wellformed import check_circuit


@dataclass(frozen=True, slots=True)
class Assignment:
    """Values of a circuit's sources for one run."""

    public: dict[str, Ints]
    witness: dict[str, Ints]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A circuit, the graph it came from, and how its columns are filled. The same graph gives the same circuit."""

    graph: Graph
    circuit: Circuit
    fills: dict[str, Fill]

    @property
    def weights(self) -> dict[str, Ints]:
        names = (source.name for source in self.circuit.sources if source.kind == "weight")
        return {name: self.graph.arrays[name] for name in names}

    def assign(self, inputs: Mapping[str, Ints]) -> Assignment:
        """Runs the graph and fills every column. InvalidRequest or OutOfRange for inputs that do not fit the graph."""
        tensors = run(self.graph, inputs)
        known = Known(tensors, {})
        for name, fill in self.fills.items():
            known.columns[name] = fill(known)
        public = {name: tensors[name] for name in self.graph.inputs}
        return Assignment(public | {public_name(name): tensors[name] for name in self.graph.outputs}, known.columns)


def public_name(output: str) -> str:
    """The public source that holds an output tensor."""
    return f"output {output}"


def lower(graph: Graph) -> Lowered:
    """Twice: to count what is range-checked, then with limbs chosen for these counts.

    InvalidRequest for a graph whose sums could pass half the field: use fewer bits.
    """
    limbs = plan(_emit(graph, {}).demands)
    emitter = _emit(graph, limbs)
    circuit = emitter.circuit()
    check_circuit(circuit)
    check_bounds(circuit, {})
    return Lowered(graph, circuit, emitter.fills)


def _emit(graph: Graph, limbs: Plan) -> Emitter:
    emitter = Emitter(graph, limbs)
    for name in graph.inputs:
        emitter.view(name)
    for node in graph.nodes:
        emitter.views[node.output] = _lower_node(emitter, node)
    for name in graph.outputs:
        _publish(emitter, name)
    return emitter


def _lower_node(emitter: Emitter, node: Node) -> View:
    match node.operator:
        case Contract():
            return lower_contract(emitter, node, node.operator)
        case Affine():
            return lower_affine(emitter, node, node.operator)
        case Reshape():
            return lower_reshape(emitter, node)
        case Requantize():
            return lower_requantize(emitter, node, node.operator)
        case Table():
            return lower_table(emitter, node, node.operator)
        case Softmax():
            return lower_softmax(emitter, node, node.operator)
        case InverseRoot():
            return lower_inverse_root(emitter, node, node.operator)


def _publish(emitter: Emitter, name: str) -> None:
    view = emitter.view(name)
    source = emitter.public(public_name(name), name)

    emitter.equal(f"{source} is public", view.form, Expr((read_source(source, view.factors),)))
