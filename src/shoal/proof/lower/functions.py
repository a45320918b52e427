"""Functions of one number by table, softmax by its table, reciprocal roots by a table of mantissas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shoal.proof.circuit import Expr, Index, Read, Shape
from shoal.proof.circuit import Table as Rows
from shoal.proof.graph.builder import identity
from shoal.proof.graph.exact import shifted
from shoal.proof.graph.interpreter import exponents, log_of_sum
from shoal.proof.graph.ir import Ints, InverseRoot, Node, Softmax, Table
from shoal.proof.lower.contractions import operands_of
from shoal.proof.lower.emitter import Emitter, Fill, Known, Ranged
from shoal.proof.lower.form import Factors, Form, View, add, flat, read_source, source_view
from shoal.proof.lower.requantize import half, remainder


def _affine_operand(emitter: Emitter, tensor: str) -> View:
    """The operand as a key: sums of products are committed first."""
    if emitter.view(tensor).form.pairs:
        emitter.copy(tensor)
    return emitter.view(tensor)


def lower_table(emitter: Emitter, node: Node, how: Table) -> View:
    view = _affine_operand(emitter, node.inputs[0])
    shape = emitter.graph.tensors[node.output].shape
    values = emitter.graph.arrays[how.values].astype(np.int64)
    rows = Rows(f"{how.values} from {how.first}", (np.arange(how.first, how.first + len(values)), values))
    emitter.column(node.output, shape, lambda known: known.tensors[node.output])
    keys = (view.form.affine, Expr((read_source(node.output, view.factors),)))
    emitter.lookup(f"{node.output} = table", flat(view.factors), rows, keys)
    return source_view(node.output, shape)


# ---- softmax


def lower_softmax(emitter: Emitter, node: Node, how: Softmax) -> View:
    """d >= 0 because it is in the table; c is the smallest that will do because sum E(d - 1) is above 2^one."""
    shape = emitter.graph.tensors[node.output].shape
    (form,), factors = operands_of(emitter, [(node.inputs[0], identity(len(shape)))], shape)
    table = emitter.graph.arrays[how.values].astype(np.int64)
    rows = Rows(how.values, (np.arange(len(table) - 1), table[1:], table[:-1]))
    d, value = _differences(emitter, node, how, form, factors)
    p = emitter.column(node.output, shape, lambda known: known.tensors[node.output])
    before = emitter.column(f"{node.output}.before", shape, lambda known: table[value(known)])
    keys = (d, *(Expr((read_source(name, factors),)) for name in (p, before)))
    emitter.lookup(f"{node.output} = exponential", flat(factors), rows, keys)
    _hold_sums(emitter, node, how, (p, before))
    return source_view(node.output, shape)


def _differences(emitter: Emitter, node: Node, how: Softmax, form: Form, factors: Factors) -> tuple[Expr, Fill]:
    """d = c - q: of c and x themselves if there is nothing to round and nothing to multiply, else a column."""
    name, x, shape = node.output, node.inputs[0], emitter.graph.tensors[node.output].shape
    table = emitter.graph.arrays[how.values]

    def log(known: Known) -> Ints:
        return log_of_sum(shifted(known.tensors[x], how.shift), how, table)

    c = emitter.ranged(f"{name}.log", (*shape[:-1], 1), how.low, how.high, log)

    def value(known: Known) -> Ints:
        return c.value(known) - shifted(known.tensors[x], how.shift)

    rows = c.expr((*factors[:-1], ()))
    if how.shift == 0 and not form.pairs:
        return add([(1, rows), (-1, form.affine)]), value
    d = Expr((read_source(emitter.column(f"{name}.difference", shape, value), factors),))
    terms = [(1 << how.shift, rows), (-1 << how.shift, d)]
    if how.shift:
        rest = emitter.digits(f"{name}.rest", shape, how.shift, lambda known: remainder(known.tensors[x], how.shift))
        terms.append((1, rest.expr(factors)))
    emitter.equal(f"{name} rounds", form, add(terms, -half(how.shift)))
    return d, value


def _hold_sums(emitter: Emitter, node: Node, how: Softmax, columns: tuple[str, str]) -> None:
    """2^one - sum p >= 0 and sum p_before - 2^one - 1 >= 0, by a range check of each row's slack."""
    shape, one = emitter.graph.tensors[node.output].shape, 1 << how.one
    rows = shape[:-1]
    for name, sign, constant in ((columns[0], -1, one), (columns[1], 1, -one - 1)):
        slack = _row_slack(emitter, name, rows, sign, constant, how.one + 1)
        summed = Expr((Read(name, (*identity(len(rows)), Index(summed=True)), sign),), constant)
        emitter.equal(f"{name} sums up", Form(rows, summed), slack.expr(tuple((length,) for length in rows)))


def _row_slack(emitter: Emitter, name: str, rows: Shape, sign: int, constant: int, bits: int) -> Ranged:
    def slack(known: Known) -> Ints:
        found: Ints = known.columns[name].sum(axis=-1) * sign + constant
        return found

    return emitter.ranged(f"{name}.slack", rows, 0, (1 << bits) - 1, slack)


# ---- reciprocal roots


def lower_inverse_root(emitter: Emitter, node: Node, how: InverseRoot) -> View:
    """x = m P + rest, 0 <= rest < P, P = 4^e and F = 2^(exponents - e) by table, r = T(m) by table, y = r F."""
    view = _affine_operand(emitter, node.inputs[0])
    shape = emitter.graph.tensors[node.output].shape
    root = _Root(emitter, node, how, view.factors)
    power, factor = root.pair("power", lambda e: 4**e), root.pair("factor", lambda e: 2 ** (how.exponents - e))
    mantissa = root.column("mantissa", lambda known: root.x(known) >> 2 * root.e(known))
    least, table = 1 << (how.mantissa - 2), emitter.graph.arrays[how.values].astype(np.int64)
    entry = root.column("entry", lambda known: table[(root.x(known) >> 2 * root.e(known)) - least])
    exponent = np.arange(how.exponents + 1)
    powers = Rows(f"powers {how.exponents}", (4**exponent, 2 ** (how.exponents - exponent)))
    emitter.lookup(f"{node.output} powers", flat(view.factors), powers, (power, factor))
    mantissas = Rows(how.values, (np.arange(least, least + len(table)), table))
    emitter.lookup(f"{node.output} = table", flat(view.factors), mantissas, (mantissa, entry))
    _divide(emitter, root, (mantissa, power))
    emitter.column(node.output, shape, lambda known: known.tensors[node.output])
    product = Form(flat(view.factors), Expr(), (), ((entry, factor),))
    emitter.equal(f"{node.output} = entry * factor", product, Expr((read_source(node.output, view.factors),)))
    return source_view(node.output, shape)


@dataclass(frozen=True, slots=True)
class _Root:
    emitter: Emitter
    node: Node
    how: InverseRoot
    factors: Factors

    def x(self, known: Known) -> Ints:
        return known.tensors[self.node.inputs[0]]

    def e(self, known: Known) -> Ints:
        return exponents(self.x(known), self.how)

    def pair(self, name: str, of: Callable[[Ints], Ints]) -> Expr:
        """A column that is a function of e."""
        return self.column(name, lambda known: of(self.e(known)))

    def column(self, name: str, fill: Fill) -> Expr:
        shape = self.emitter.graph.tensors[self.node.output].shape
        return Expr((read_source(self.emitter.column(f"{self.node.output}.{name}", shape, fill), self.factors),))


def _divide(emitter: Emitter, root: _Root, parts: tuple[Expr, Expr]) -> None:
    """x - m P is in 0 .. P - 1: it and P - 1 less it are range-checked."""
    name, shape = root.node.output, emitter.graph.tensors[root.node.output].shape
    most, view = (1 << 2 * root.how.exponents) - 1, emitter.view(root.node.inputs[0])

    def low(known: Known) -> Ints:
        return root.x(known) & ((np.int64(1) << 2 * root.e(known)) - 1)

    def high(known: Known) -> Ints:
        return (np.int64(1) << 2 * root.e(known)) - 1 - low(known)

    rest = emitter.ranged(f"{name}.rest", shape, 0, most, low).expr(root.factors)
    room = emitter.ranged(f"{name}.room", shape, 0, most, high).expr(root.factors)
    quotient = Form(view.form.space, Expr(), (), (parts,))
    emitter.equal(f"{name} divides", quotient, add([(1, view.form.affine), (-1, rest)]))
    emitter.equal(f"{name} rest below power", Form(view.form.space, parts[1]), add([(1, rest), (1, room)], 1))
