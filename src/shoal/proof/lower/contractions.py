"""Products, sums and views: no columns of their own, unless an operand must be copied to be read so."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.proof.circuit import Expr, Index, Shape
from shoal.proof.graph.ir import Affine, Contract, Indices, Node
from shoal.proof.lower.emitter import Emitter
from shoal.proof.lower.form import Factors, Form, View, add, flat, regroup, scale
from shoal.proof.lower.reading import Operand, arrange, needs_copy, summed_over, through

MOST_READS = 8
"""A sum of more sources than this gets a column of its own: every read of it costs prover and verifier."""


def operands_of(emitter: Emitter, reads: Sequence[tuple[str, Indices]], lengths: Shape) -> tuple[list[Form], Factors]:
    """Every operand's form over common factors of the node's axes, copies made where they must be."""
    operands = [_operand(emitter, tensor, indices, lengths) for tensor, indices in reads]
    factors = arrange(operands, lengths)
    if factors is None:
        operands = [Operand(emitter.copy(tensor), o.indices) for (tensor, _), o in zip(reads, operands, strict=True)]
        factors = arrange(operands, lengths)
        assert factors is not None, "copies have no factors to disagree about"
    return [through(operand, factors) for operand in operands], factors


def _operand(emitter: Emitter, tensor: str, indices: Indices, lengths: Shape) -> Operand:
    view = emitter.view(tensor)
    if any(index.summed for index in indices):
        view, indices = _sum_axes(emitter, tensor, indices)
    operand = Operand(view, indices)
    if needs_copy(operand, lengths, emitter.shapes):
        operand = Operand(emitter.copy(tensor), indices)
    return operand


def _sum_axes(emitter: Emitter, tensor: str, indices: Indices) -> tuple[View, Indices]:
    view: View | None = emitter.view(tensor)
    for axis, index in enumerate(indices):
        if index.summed:
            view = view and summed_over(view, axis, emitter.shapes)
    if view is None:
        emitter.copy(tensor)
        return _sum_axes(emitter, tensor, indices)
    return view, tuple(Index() if index.summed else index for index in indices)


def lower_contract(emitter: Emitter, node: Node, how: Contract) -> View:
    shape = emitter.graph.tensors[node.output].shape
    for tensor in node.inputs:
        if emitter.view(tensor).form.pairs:
            emitter.copy(tensor)
    reads = list(zip(node.inputs, (how.left, how.right), strict=True))
    (left, right), factors = operands_of(emitter, reads, (*shape, *how.summed))
    own, summed = factors[: len(shape)], factors[len(shape) :]
    return View(own, Form(flat(own), Expr(), flat(summed), ((left.affine, right.affine),)))


def lower_affine(emitter: Emitter, node: Node, how: Affine) -> View:
    shape = emitter.graph.tensors[node.output].shape
    _copy_unlike_sums(emitter, node.inputs)
    reads = [(tensor, indices) for tensor, (_, indices) in zip(node.inputs, how.reads, strict=True)]
    forms, factors = operands_of(emitter, reads, shape)
    coefficients = [coefficient for coefficient, _ in how.reads]
    affine = add([(c, form.affine) for c, form in zip(coefficients, forms, strict=True)], how.constant)
    pairs = tuple((scale(a, c), b) for c, form in zip(coefficients, forms, strict=True) for a, b in form.pairs)
    summed = next((form.summed for form in forms if form.pairs), ())
    view = View(factors, Form(flat(factors), affine, summed, pairs))
    if len(affine.reads) > MOST_READS and not pairs:
        emitter.views[node.output] = view
        emitter.copy(node.output)
        return emitter.views[node.output]
    return view


def _copy_unlike_sums(emitter: Emitter, tensors: Sequence[str]) -> None:
    """Sums of products are added as they are where they sum over the same axes; the others are copied first."""
    kept: Shape | None = None
    for tensor in tensors:
        form = emitter.view(tensor).form
        if form.pairs and kept is None:
            kept = form.summed
        elif form.pairs and form.summed != kept:
            emitter.copy(tensor)


def lower_reshape(emitter: Emitter, node: Node) -> View:
    shape = emitter.graph.tensors[node.output].shape
    view = emitter.view(node.inputs[0])
    factors = regroup(flat(view.factors), shape)
    if factors is None:
        emitter.copy(node.inputs[0])
        view = _flattened(emitter, node)
        factors = regroup(flat(view.factors), shape)
        assert factors is not None, "one axis splits into any shape"
    return View(factors, _split(view, factors))


def _split(view: View, factors: Factors) -> Form:
    """The form over finer factors of the same row-major order."""
    everything = Operand(View((flat(view.factors),), view.form), (Index(((0, 1),)),))
    return through(everything, (flat(factors),))


def _flattened(emitter: Emitter, node: Node) -> View:
    """A copy of the input with one axis, for shapes whose factors do not fit each other."""
    tensor, old = node.inputs[0], emitter.graph.tensors[node.inputs[0]]
    length = 1
    for size in old.shape:
        length *= size
    name = f"{node.output}.flat"
    made = emitter.ranged(name, (length,), old.low, old.high, lambda known: known.tensors[tensor].reshape(-1))
    view = emitter.view(tensor)
    flat_view = View(((length,),), Form((length,), made.expr(((length,),))))
    same = through(Operand(flat_view, (Index(((0, 1),)),)), (flat(view.factors),))
    emitter.equal(name, view.form, same.affine)
    return flat_view
