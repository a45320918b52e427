"""Linear forms: a known number plus coefficients times committed numbers, collected one index after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.proof.circuit import Expr, Read
from shoal.proof.plain.places import Tensor, Tuple, flat_index
from shoal.proof.plain.scalars import Element, Field


@dataclass(slots=True)
class Form:
    """known + sum of coefficient * number; a number is named by its source and its position in it."""

    known: Element = (0, 0)
    of: dict[tuple[str, int], Element] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the verifier has: the sources' shapes, and the numbers of those that are not committed."""

    field: Field
    shapes: Mapping[str, Tuple]
    known: Mapping[str, Tensor]

    def add(self, form: Form, expr: Expr, at: Mapping[int, int], weight: Element) -> None:
        """form += weight * (the expression at one index: axis -> its value)."""
        number = self.field.number
        form.known = self.field.add(form.known, self.field.times(weight, number(expr.constant)))
        for read in expr.reads:
            for place in self._places(read, at):
                self._add_number(form, read.source, place, self.field.times(weight, number(read.coefficient)))

    def _add_number(self, form: Form, source: str, place: Tuple, weight: Element) -> None:
        if source in self.known:
            value = self.field.number(self.known[source].at(place))
            form.known = self.field.add(form.known, self.field.times(weight, value))
            return
        key = (source, flat_index(self.shapes[source], place))
        form.of[key] = self.field.add(form.of.get(key, (0, 0)), weight)

    def _places(self, read: Read, at: Mapping[int, int]) -> list[Tuple]:
        """Entries of the source that a read sums up: none where an axis is left, all along summed axes."""
        found: list[Tuple] = [()]
        for length, index in zip(self.shapes[read.source], read.indices, strict=True):
            if index.summed:
                found = [(*place, i) for place in found for i in range(length)]
                continue
            here = index.offset + sum(stride * at[axis] for axis, stride in index.terms)
            if index.gather is not None:
                table = self.known[index.gather].flat
                here = table[here] if 0 <= here < len(table) else -1
            found = [(*place, here) for place in found] if 0 <= here < length else []
        return found


def mentioned(expr: Expr) -> set[int]:
    """The axes an expression depends on."""
    return {axis for read in expr.reads for index in read.indices if not index.summed for axis, _ in index.terms}


def combined(field_: Field, claims: list[tuple[Form, Element]], challenge: Element) -> tuple[Form, Element]:
    """sum of challenge^i * claim i: a form without a known part, and the value it has to have."""
    total, value = Form(), (0, 0)
    for i, (form, claimed) in enumerate(claims):
        power = field_.power(challenge, i)
        value = field_.add(value, field_.times(power, field_.minus(claimed, form.known)))
        for key, coefficient in form.of.items():
            total.of[key] = field_.add(total.of.get(key, (0, 0)), field_.times(power, coefficient))
    return total, value
