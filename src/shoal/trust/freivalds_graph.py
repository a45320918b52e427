"""Freivalds' check along a run of an integer graph, by a verifier that holds the weights.

    answerer   runs the graph, sends the outputs of its contractions (`claims`) and the result
    verifier   walks the graph:  a contraction: its operands are read here, the claimed output is checked
                                 anything else: computed again, exact, and cheap next to the contractions
               compares the result

So every number is either computed here or bound, by a check that no claim can foresee, to numbers that are. Rounding
and tables are exact on both sides: there is no tolerance to hide in.

What this does not protect against: a graph that is not the model that was meant (compare `graph` digests first), and
float inference, which no integer graph reproduces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np

from shoal.core.errors import InvalidRequest
from shoal.proof.graph.exact import OutOfRange, contract, read
from shoal.proof.graph.interpreter import Values, run
from shoal.proof.graph.ir import Contract, Graph, Ints, Node
from shoal.trust.freivalds import (
    Coins,
    Product,
    Secret,
    draw,
    error_bound,
    is_product,
    matches,
    primes_for,
    system_coins,
)

MAX_USES = 10_000
"""Of one secret, after which a new one is drawn: with 2 repetitions and 211 matrices the bound is then 2^-41."""


def claims(graph: Graph, values: Values) -> dict[str, Ints]:
    """What the answerer sends: outputs of the contractions, in the narrowest type that holds them."""
    return {node.output: values[node.output] for node in graph.nodes if isinstance(node.operator, Contract)}


@dataclass(frozen=True, slots=True)
class Walk:
    """`problem` None: every number follows. `bound`: chance that one of the checked products is false all the same."""

    problem: str | None
    num_checked: int
    num_recomputed: int
    bound: Fraction

    @property
    def holds(self) -> bool:
        return self.problem is None


@dataclass(slots=True)
class Secrets:
    """Vectors of this verifier, drawn once for each weight matrix and used for many runs (Slalom). Never shown.

    A prover that is told of each run only that it passed gains one chance per use; after a failure all are drawn anew.
    """

    repetitions: int = 2
    coins: Coins = system_coins
    uses: int = 0
    _drawn: dict[tuple[str, int], Secret] = field(default_factory=dict)

    def of(self, name: str, w: Ints, prime: int) -> Secret:
        """For the matrix that contraction `name` always multiplies by."""
        if (name, prime) not in self._drawn:
            self._drawn[name, prime] = draw(w, prime, self.repetitions, self.coins)
        return self._drawn[name, prime]

    def used(self, held: bool) -> None:
        """A walk ended."""
        self.uses += 1
        if not held or self.uses >= MAX_USES:
            self._drawn.clear()
            self.uses = 0


@dataclass(frozen=True, slots=True)
class GraphCheck:
    """A graph this verifier holds. `secrets` None: fresh coins for every product of every walk."""

    graph: Graph
    repetitions: int = 2
    secrets: Secrets | None = None
    coins: Coins = system_coins

    def walk(self, inputs: Mapping[str, Ints], claimed: Mapping[str, Ints], outputs: Mapping[str, Ints]) -> Walk:
        """Whether `outputs` follow from `inputs`. InvalidRequest for inputs that are none of this graph's."""
        uses = 1 if self.secrets is None else self.secrets.uses + 1
        state = _State(self, dict(inputs))
        problem = state.first_problem(claimed) or _difference(outputs, state.values, self.graph.outputs)
        if self.secrets is not None:
            self.secrets.used(problem is None)
        repetitions = self.repetitions if self.secrets is None else min(self.repetitions, self.secrets.repetitions)
        bound = error_bound(repetitions, state.num_checked, uses) if state.num_checked else Fraction(0)
        return Walk(problem, state.num_checked, state.num_recomputed, bound)


class _State:
    def __init__(self, check: GraphCheck, inputs: dict[str, Ints]) -> None:
        graph = check.graph
        self._check, self._graph = check, graph
        self.values: Values = run(Graph(graph.tensors, (), graph.inputs, graph.inputs, graph.arrays), inputs)
        self.num_checked = self.num_recomputed = 0

    def first_problem(self, claimed: Mapping[str, Ints]) -> str | None:
        """In the order of evaluation; what follows a false number is not looked at."""
        for node in self._graph.nodes:
            problem = self._contraction(node, claimed) if isinstance(node.operator, Contract) else self._again(node)
            if problem is not None:
                return f"{node.name}: {problem}"
        return None

    def _again(self, node: Node) -> str | None:
        inner = tuple(name for name in node.inputs if name not in self._graph.arrays)
        graph = self._graph
        part = Graph(graph.tensors, (node,), (*inner, *_gathers(node, graph)), (node.output,), graph.arrays)
        try:
            self.values[node.output] = run(part, self.values)[node.output]
        except (OutOfRange, InvalidRequest) as error:
            return f"cannot be computed from the claims before it: {error}"
        self.num_recomputed += 1
        return None

    def _contraction(self, node: Node, claimed: Mapping[str, Ints]) -> str | None:
        declared = self._graph.tensors[node.output]
        y = claimed.get(node.output)
        if y is None or y.shape != declared.shape or y.dtype.kind != "i":
            return f"expected a claim of integers of shape {declared.shape}, found {None if y is None else y.shape}"
        y = y.astype(np.int64)
        if int(y.min()) < declared.low or int(y.max()) > declared.high:
            return f"expected numbers in {declared.low} .. {declared.high}, found others"
        if not self._holds(node, y):
            return "the claimed product is not the product"
        self.values[node.output] = y
        return None

    def _holds(self, node: Node, y: Ints) -> bool:
        assert isinstance(node.operator, Contract), "only called with contractions"
        lengths = (*y.shape, *node.operator.summed)
        sides = (node.operator.left, node.operator.right)
        left, right = (
            read(self.values[name], indices, lengths, self.values)
            for name, indices in zip(node.inputs, sides, strict=True)
        )
        products = _products(left, right, y, lengths)
        if products is None:
            self.num_recomputed += 1
            return np.array_equal(contract(left, right, y.shape, node.operator.summed), y)
        self.num_checked += len(products)
        return all(self._is_product(node, product, len(products) == 1) for product in products)

    def _is_product(self, node: Node, product: Product, is_single: bool) -> bool:
        secrets = self._check.secrets
        if secrets is None or not is_single or node.inputs[1] not in self._graph.arrays:
            return is_product(product, self._check.repetitions, self._check.coins)
        bound = _declared_difference(self._graph, node, product)
        return all(matches(product, secrets.of(node.name, product.w, prime)) for prime in primes_for(bound))


def _gathers(node: Node, graph: Graph) -> tuple[str, ...]:
    """Inputs of the graph that pick indices: any node may read them."""
    return tuple(name for name in graph.inputs if name not in node.inputs)


def _declared_difference(graph: Graph, node: Node, product: Product) -> int:
    """As `Product.largest_difference`, from declarations: the same primes in every walk."""
    left, right, out = (graph.tensors[name] for name in (*node.inputs, node.output))
    sizes = [max(abs(tensor.low), abs(tensor.high)) for tensor in (left, right, out)]
    return sizes[0] * sizes[1] * int(product.x.shape[1]) + sizes[2]


def _products(left: Ints, right: Ints, y: Ints, lengths: tuple[int, ...]) -> list[Product] | None:
    """The contraction as matrix products, one for each index of the axes that both sides have; None: recompute it.

    `left` and `right` span all axes, those they lack with length 1. Recomputed where a summed axis is missing on one
    side, and where a product is so thin that checking it costs as much.
    """
    rank, axes = y.ndim, range(y.ndim)
    if any((left.shape[a] == 1) != (right.shape[a] == 1) for a in range(rank, len(lengths))):
        return None
    batch = [a for a in axes if left.shape[a] == right.shape[a] == lengths[a]]
    rows = [a for a in axes if a not in batch and right.shape[a] == 1]
    columns = [a for a in axes if a not in batch and right.shape[a] != 1]
    inner = list(range(rank, len(lengths)))
    sizes = [prod(lengths[a] for a in group) for group in (batch, rows, columns, inner)]
    if min(sizes[1:]) < 4 or any(left.shape[a] != lengths[a] for a in (*rows, *inner)):
        return None
    x = left.transpose(batch + rows + columns + inner).reshape(sizes[0], sizes[1], sizes[3])
    w = right.transpose(batch + rows + inner + columns).reshape(sizes[0], sizes[3], sizes[2])
    out = y.transpose(batch + rows + columns).reshape(sizes[0], sizes[1], sizes[2])
    return [Product(*parts) for parts in zip(x, w, out, strict=True)]


def _difference(outputs: Mapping[str, Ints], values: Values, names: tuple[str, ...]) -> str | None:
    for name in names:
        if name not in outputs or not np.array_equal(outputs[name], values[name]):
            return f"output {name!r} is not what follows from the claims"
    return None
