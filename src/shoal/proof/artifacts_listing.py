"""A circuit as text that a person can read beside the model: sources, tables, and every constraint as a formula.

pool.gap range: for i < 6, j < 12, k < 12: (pool.gap[i, j, k]) in range9
conv rounds: for i < 6, j < 24, k < 24: sum l < 5, m < 5: (input[0, 0, j + l, k + m]) * (w[i, 0, l, m]) = ...
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read, Shape

_NAMES = "ijklmnopqrstuvwxyz"


def listing(circuit: Circuit) -> str:
    return "".join(f"{line}\n" for line in _lines(circuit))


def _lines(circuit: Circuit) -> Iterator[str]:
    yield "sources: tensors of integers (witness: committed for each proof)"
    for source in circuit.sources:
        bounds = "" if source.bounds is None else f"  {source.bounds[0]} .. {source.bounds[1]}"
        yield f"  {source.kind:8} {source.name}{list(source.shape)}{bounds}"
    yield "tables: what lookups allow"
    for table in circuit.tables:
        columns = ", ".join(f"{column.min()} .. {column.max()}" for column in table.columns)
        yield f"  {table.name}: {len(table.columns[0])} rows of ({columns})"
    yield "lookups: the keys are a row of the table"
    for lookup in circuit.lookups:
        yield f"  {lookup.label}: {_lookup(lookup)}"
    yield "identities: hold for every index"
    for identity in circuit.identities:
        yield f"  {identity.label}: {_identity(identity)}"


def _lookup(lookup: Lookup) -> str:
    keys = ", ".join(_expr(key) for key in lookup.keys)
    return f"{_ranges('for ', lookup.space, 0)}({keys}) in {lookup.table}"


def _identity(identity: Identity) -> str:
    rank = len(identity.space)
    products = " + ".join(f"({_expr(a)}) * ({_expr(b)})" for a, b in identity.pairs) or "0"
    total = f"{_ranges('sum ', identity.summed, rank)}{products}"
    return f"{_ranges('for ', identity.space, 0)}{total} = {_expr(identity.out)}"


def _ranges(word: str, lengths: Shape, first: int) -> str:
    named = ", ".join(f"{_axis(first + place)} < {length}" for place, length in enumerate(lengths))
    return f"{word}{named}: " if named else ""


def _expr(expr: Expr) -> str:
    parts = [_read(read) for read in expr.reads]
    if expr.constant or not parts:
        parts.append(str(expr.constant))
    return " + ".join(parts).replace("+ -", "- ")


def _read(read: Read) -> str:
    factor = "" if read.coefficient == 1 else f"{read.coefficient} * "
    return f"{factor}{read.source}[{', '.join(_index(index) for index in read.indices)}]"


def _index(index: Index) -> str:
    if index.summed:
        return "sum"
    terms = [_axis(axis) if stride == 1 else f"{stride} {_axis(axis)}" for axis, stride in index.terms]
    text = " + ".join([*terms, *([str(index.offset)] if index.offset or not terms else [])])
    return f"{index.gather}[{text}]" if index.gather else text


def _axis(number: int) -> str:
    return _NAMES[number] if number < len(_NAMES) else f"x{number}"
