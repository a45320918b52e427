"""An identity with its space at a random point, and the prover's numbers: what its expressions are along some axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.proof import field, identities
from shoal.proof.axes import Vectors
from shoal.proof.circuit import Expr, Identity
from shoal.proof.claims import Shapes
from shoal.proof.expressions import Values, evaluate
from shoal.proof.field import Ext
from shoal.proof.scalars import Element, mul


@dataclass(frozen=True, slots=True)
class Fixed:
    """vectors: of every axis, eq(z, .) for the space's and ones for summed ones. points: coordinates of the space's."""

    identity: Identity
    vectors: Vectors
    points: Mapping[int, Ext]
    shapes: Shapes
    values: Values

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.identity.space + self.identity.summed

    def over(self, expr: Expr, keep: Sequence[int]) -> Ext:
        """The expression over the kept axes, summed over the others it mentions: (lengths of kept axes, 2)."""
        bound = {axis: vector for axis, vector in self.vectors.items() if axis not in keep}
        return evaluate(expr, keep, bound, self.shapes.box(*self.lengths), self.values).wide()

    def output(self) -> Element:
        """The output at z."""
        out = self.over(self.identity.out, ()).reshape(2)
        return mul(field.element(out), identities.output_factor(self.identity, self.vectors))


def fix(identity: Identity, point: Ext, shapes: Shapes, values: Values) -> Fixed:
    vectors, points = identities.space_vectors(identity, point), identities.axis_points(identity.space, point)
    return Fixed(identity, vectors, points, shapes, values)
