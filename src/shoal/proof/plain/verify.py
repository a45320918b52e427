"""The second verifier, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.proof.circuit import Circuit
from shoal.proof.parameters import Parameters
from shoal.proof.plain import statement
from shoal.proof.plain.coins import HashCoins
from shoal.proof.plain.forms import Form, Numbers, combined
from shoal.proof.plain.identities import verify_identities
from shoal.proof.plain.lookups import Claims, counts_name, verify_lookups
from shoal.proof.plain.opening import Shape, verify_code, verify_sum
from shoal.proof.plain.parts import Parts, parse
from shoal.proof.plain.places import Tensor, Tuple, indices, places
from shoal.proof.plain.scalars import GOLDILOCKS, Element
from shoal.proof.plain.soundness import is_enough
from shoal.proof.plan import make_plan
from shoal.proof.rejected import ProofRejected

Arrays = Mapping[str, Any]
Place = tuple[str, int]


def verify_plain(
    circuit: Circuit, public: Arrays, proof: bytes, weights: Arrays | None = None, root: bytes | None = None
) -> None:
    """As `verifier.verify`, for a circuit that passes `wellformed` and `bounds`. Raises ProofRejected."""
    given = {name: Tensor.of(array) for name, array in public.items()}
    model = {} if root is not None else {name: Tensor.of(array) for name, array in (weights or {}).items()}
    constants = {name: Tensor.of(array) for name, array in circuit.constants.items()}
    groups = [committed_shapes(circuit, "witness"), committed_shapes(circuit, "weight") if root is not None else {}]
    stores = [group for group in groups if group]
    shapes = shapes_of(circuit, root is not None)
    if len(shapes) != len(stores) or not is_enough(circuit, shapes, GOLDILOCKS.p**2):
        raise ProofRejected("plain shapes", "expected commitments that make the statement sound")
    sent = parse(proof, circuit, shapes, bool(groups[0]))
    listed = [[shape.rows, shape.columns, shape.rate, shape.queries] for shape in shapes]
    coins = statement.begin(circuit, listed, root or statement.tensors_digest(model), given)
    numbers = Numbers(GOLDILOCKS, source_shapes(circuit), {**given, **model, **constants})
    form, value = _reduced(circuit, numbers, sent, coins)
    if GOLDILOCKS.add((0, 0), *(part.share for part in sent.vectors)) != value:
        raise ProofRejected("plain shares", "expected shares that sum up to the combined claims")
    for part in sent.vectors:
        coins.hear("opening share", [part.share])
    roots = ([sent.root] if groups[0] else []) + ([root] if root is not None and groups[1] else [])
    for number, own_root in enumerate(roots):
        point = verify_sum(GOLDILOCKS, line_of(form, stores[number], shapes[number]), sent.vectors[number], coins)
        verify_code(own_root, shapes[number], point, sent.vectors[number].value, sent.codes[number], coins)


def _reduced(circuit: Circuit, numbers: Numbers, sent: Parts, coins: HashCoins) -> tuple[Form, Element]:
    """Everything as one linear form in committed numbers, and its value."""
    if sent.root:
        coins.hear_bytes("witness", sent.root)
    claims = Claims()
    if sent.tree is not None:
        claims += verify_lookups(circuit, numbers, sent.tree, coins)
    claims += verify_identities(circuit, numbers, sent.sums, coins)
    return combined(GOLDILOCKS, claims, coins.draw("claims")[0])


def line_of(form: Form, store: Mapping[str, Tuple], shape: Shape) -> dict[int, Element]:
    """Position in the committed vector -> coefficient."""
    where, used = places(list(store.values()))
    if used > shape.rows << shape.columns:
        raise ProofRejected("plain shapes", "expected a commitment with room for all its numbers")
    at = dict[Place, int]()
    for name, source, positions in zip(store, store.values(), where, strict=True):
        at |= {(name, flat): positions[index] for flat, index in enumerate(indices(source))}
    return {at[key]: coefficient for key, coefficient in form.of.items() if key[0] in store}


def committed_shapes(circuit: Circuit, kind: str) -> dict[str, Tuple]:
    """Names and shapes of what one commitment holds, in order; the counts of tables' rows follow the witness."""
    found = {source.name: source.shape for source in circuit.sources if source.kind == kind}
    if kind == "witness" and circuit.lookups:
        found |= {counts_name(table.name): (len(table.columns[0]),) for table in circuit.tables}
    return found


def source_shapes(circuit: Circuit) -> dict[str, Tuple]:
    return {**{source.name: source.shape for source in circuit.sources}, **committed_shapes(circuit, "witness")}


def shapes_of(circuit: Circuit, commits_weights: bool) -> list[Shape]:
    def shape(params: Parameters) -> Shape:
        return Shape(params.rows, params.column_bits, params.rate_bits, params.queries)

    return [shape(store.params) for store in make_plan(circuit, commits_weights).stores]
