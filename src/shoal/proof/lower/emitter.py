"""A circuit under construction: sources, constraints, and for every committed column how its values are computed.

The emitter runs twice over a graph: the first time it only counts what is range-checked, then `limbs.plan` chooses how,
the second time the circuit is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.proof.circuit import Circuit, Expr, Identity, IntArray, Lookup, Read, Shape, Source, Table
from shoal.proof.graph.builder import identity
from shoal.proof.graph.ir import Graph, Ints
from shoal.proof.lower.form import Factors, Form, View, add, flat, plain_factors, read_source, source_view
from shoal.proof.lower.limbs import MAX_WIDTH, Plan, candidates


@dataclass(frozen=True, slots=True)
class Known:
    """What a column is computed from: the graph's tensors (by the interpreter) and the columns before it."""

    tensors: Mapping[str, Ints]
    columns: dict[str, Ints]


Fill = Callable[[Known], Ints]


@dataclass(frozen=True, slots=True)
class Ranged:
    """An integer held to a range by lookups: the sum of weight * source over its limbs, all of one shape.

    No constant is added, so that it is zero where its sources are read outside of their axes.
    """

    limbs: tuple[tuple[str, int], ...]
    highest: int
    """No limb exceeds it (limbs are not negative where the range begins at zero)."""

    def expr(self, factors: Factors) -> Expr:
        return Expr(tuple(read_source(name, factors, weight) for name, weight in self.limbs))

    def value(self, known: Known) -> Ints:
        return total([known.columns[name] * np.int64(weight) for name, weight in self.limbs])


class Emitter:
    """Collects; `circuit()` hands over."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self._plan = graph, plan
        self.shapes: dict[str, Shape] = {}
        self.views: dict[str, View] = {}
        self.fills: dict[str, Fill] = {}
        self.demands: Counter[int] = Counter()
        """How many numbers of so many bits are range-checked."""
        self._sources: list[Source] = []
        self._tables: dict[str, Table] = {}
        self._lookups: list[Lookup] = []
        self._identities: list[Identity] = []
        self._constants: dict[str, IntArray] = {}

    # ---- sources

    def view(self, tensor: str) -> View:
        """A tensor's view; inputs, weights and constants become sources when first asked for."""
        if tensor not in self.views:
            declared = self.graph.tensors[tensor]
            kind = {"input": "public", "weight": "weight", "constant": "constant"}[declared.role]
            bounds = (declared.low, declared.high)
            self._declare(Source(tensor, declared.shape, kind, bounds))  # type: ignore[arg-type]  # one of Kind's words
            if kind == "constant":
                self._constants[tensor] = self.graph.arrays[tensor].astype(np.int64)
            self.views[tensor] = source_view(tensor, declared.shape)
        return self.views[tensor]

    def column(self, name: str, shape: Shape, fill: Fill) -> str:
        """A committed column. Something else must hold its values to a range."""
        self._declare(Source(name, shape, "witness"))
        self.fills[name] = fill
        return name

    def public(self, name: str, tensor: str) -> str:
        """A public source for an output tensor."""
        declared = self.graph.tensors[tensor]
        self._declare(Source(name, declared.shape, "public", (declared.low, declared.high)))
        return name

    def _declare(self, source: Source) -> None:
        self._sources.append(source)
        self.shapes[source.name] = source.shape

    # ---- constraints

    def lookup(self, label: str, space: Shape, table: Table, keys: tuple[Expr, ...]) -> None:
        self._tables[table.name] = table
        self._lookups.append(Lookup(label, space, table.name, keys))

    def equal(self, label: str, form: Form, out: Expr) -> None:
        """The form equals `out`, for every tuple of the form's space."""
        constraint = Identity(label, form.space, form.summed, form.pairs, add([(1, out), (-1, form.affine)]))
        self._identities.append(constraint)

    def ranged(self, name: str, shape: Shape, low: int, high: int, fill: Fill) -> Ranged:
        """Columns for an integer that lookups hold to a range which includes low .. high and is not 5 times as long."""
        bits, start = _steps(low, high)
        even = bits + (bits > MAX_WIDTH and bits % 2)  # halves of one width: one table less
        return self._cut(name, shape, (even, start), fill)

    def digits(self, name: str, shape: Shape, bits: int, fill: Fill) -> Ranged:
        """Columns for an integer that lookups hold to 0 .. 2^bits - 1, no more."""
        return self._cut(name, shape, (bits, 0), fill)

    def _cut(self, name: str, shape: Shape, span: tuple[int, int], fill: Fill) -> Ranged:
        """Limbs for start .. start + 2^bits - 1, `span` being (bits, start)."""
        bits, start = span
        self.demands[bits] += int(np.prod(shape))
        widths = self._plan.get(bits) or candidates(bits)[0]
        shifts = [sum(widths[:place]) for place in range(len(widths))]
        # The lower limbs are digits, the highest carries the sign: `start` is a multiple of its steps.
        limbs = []
        for place, (width, shift) in enumerate(zip(widths, shifts, strict=True)):
            last = place == len(widths) - 1
            limb = self.column(name if len(widths) == 1 else f"{name}.{place}", shape, _digit(fill, shift, width, last))
            self._hold(limb, shape, width, start >> shift if last else 0)
            limbs.append((limb, 1 << shift))
        return Ranged(tuple(limbs), max((1 << width) - 1 for width in widths) + max(start >> shifts[-1], 0))

    def _hold(self, source: str, shape: Shape, width: int, low: int) -> None:
        key = Expr((Read(source, identity(len(shape))),), -low)
        self.lookup(f"{source} range", shape, range_table(width), (key,))

    # ---- copies

    def copy(self, tensor: str) -> View:
        """The tensor as a source of its own, with every axis kept: committed, range-checked and equal to its form."""
        view, declared = self.view(tensor), self.graph.tensors[tensor]
        kept = tuple((length,) for length in declared.shape)
        if source := self._as_it_stands(view):
            return View(kept, Form(flat(kept), Expr((read_source(source, kept),))))
        made = self.ranged(
            f"{tensor}.copy", declared.shape, declared.low, declared.high, lambda known: known.tensors[tensor]
        )
        self.equal(f"{tensor}.copy", view.form, made.expr(view.factors))
        plain = plain_factors(declared.shape)
        self.views[tensor] = View(plain, Form(flat(plain), made.expr(plain)))
        return View(kept, Form(flat(kept), made.expr(kept)))

    def _as_it_stands(self, view: View) -> str | None:
        """The source of which the view is nothing but another sight."""
        reads = view.form.affine.reads
        if view.form.pairs or view.form.affine.constant or len(reads) != 1:
            return None
        name = reads[0].source
        same = self.shapes[name] == view.shape and reads[0] == read_source(name, view.factors)
        return name if same else None

    def circuit(self) -> Circuit:
        return Circuit(
            tuple(self._sources),
            tuple(self._tables.values()),
            tuple(self._lookups),
            tuple(self._identities),
            self._constants,
        )


def total(parts: Sequence[Ints]) -> Ints:
    """The parts' sum, at least one."""
    return sum(parts[1:], parts[0])


def range_table(width: int) -> Table:
    return Table(f"range{width}", (np.arange(1 << width, dtype=np.int64),))


def _steps(low: int, high: int) -> tuple[int, int]:
    """(bits, start): start .. start + 2^bits - 1 includes low .. high, and start is a multiple of 2^(bits - 1)."""
    bits = max((high - low).bit_length(), 1)
    while high - (start := low >> (bits - 1) << (bits - 1)) >= 1 << bits:
        bits += 1
    return bits, start


def _digit(fill: Fill, shift: int, width: int, last: bool) -> Fill:
    mask = (1 << width) - 1

    def digit(known: Known) -> Ints:
        shifted = fill(known) >> shift
        return shifted if last else shifted & mask

    return digit
