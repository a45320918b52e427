"""How often cheats pass where that can be counted: the same protocol over fields of 121 to 2,209 elements.

The verifier is the second one, which is written for any prime; coins are honest dice, and the committed vector is open
to the verifier. Provers bend each round of a false claim so that as many challenges as its degree allows make the claim
true: counts come near the bound of a sumcheck, and may not pass any bound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from forged_sums import sumcheck
from forged_tree import forge_tree
from forger import Used, forge_claims
from lies import lies
from mutants import refusals, source_line, without
from statements import changed, told, used

from shoal.proof.circuit import Circuit, Identity, Lookup, Source, Table
from shoal.proof.fakes import Example, read
from shoal.proof.plain import lookups
from shoal.proof.plain.forms import Numbers, combined
from shoal.proof.plain.identities import verify_identities
from shoal.proof.plain.lookups import Claims, verify_lookups, verify_tree
from shoal.proof.plain.scalars import Element, Field
from shoal.proof.plain.soundness import degrees
from shoal.proof.plain.verify import source_shapes
from shoal.proof.rejected import ProofRejected

FIELDS = (Field(11, 2), Field(23, 5), Field(47, 5))
"""Of 121, 529 and 2,209 elements; w is not a square modulo p."""


@dataclass(slots=True)
class Dice:
    """Challenges nobody can foresee; the same seed gives prover and verifier the same ones."""

    field: Field
    source: random.Random

    def hear(self, label: str, elements: Sequence[Element]) -> None:
        """An interactive verifier's coins do not depend on what it hears."""

    def draw(self, label: str, count: int = 1) -> list[Element]:
        p = self.field.p
        return [(self.source.randrange(p), self.source.randrange(p)) for _ in range(count)]


def dice(field: Field, seed: int) -> Dice:
    return Dice(field, random.Random(seed))


def least(accepted: int, trials: int) -> float:
    """The lower end of Wilson's interval for the rate; one true rate in 10,000 lies below."""
    z, rate = 3.72, accepted / trials
    middle = rate + z * z / (2 * trials)
    return (middle - z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))) / (1 + z * z / trials)


def most(accepted: int, trials: int) -> float:
    return 1 - least(trials - accepted, trials)


def test_fields() -> None:
    for field in FIELDS:
        assert pow(field.w, (field.p - 1) // 2, field.p) == field.p - 1


@pytest.mark.parametrize("field", FIELDS[1:])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_sumcheck_passes_as_often_as_its_bound(field: Field, rounds: int) -> None:
    """Degree 2 in each round: 1 - (1 - 2 / |F|)^rounds, within the union bound 2 rounds / |F|."""
    trials, accepted = 1500, 0
    for seed in range(trials):
        table = [[(i * j % 7, 0) for i in range(1 << rounds)] for j in (1, 3)]
        coins = dice(field, seed)
        true = field.add((0, 0), *map(field.times, *table))
        found = sumcheck(field, [table], field.add(true, (1, 0)), "round", 2, coins, lies(plants=True))
        accepted += found.claim == field.times(*found.last[0])
    bound = 2 * rounds / field.p**2
    assert least(accepted, trials) <= bound <= most(accepted, trials)


@pytest.mark.parametrize("field", FIELDS)
def test_a_sum_of_fractions_passes_within_its_bound(field: Field) -> None:
    """Four leaves that do not sum up to zero, with random denominators."""
    trials, accepted = 800, 0
    for seed in range(trials):
        p, q = [(1, 0), (2, 0), (3, 0), (5, 1)], dice(field, ~seed).draw("leaves", 4)
        try:
            forged = forge_tree(field, p, q, dice(field, seed), lies("root", "layers", plants=True))
            point, top, bottom = verify_tree(field, forged.sent, dice(field, seed))
        except (ProofRejected, ZeroDivisionError):
            continue
        eq = [field.eq(point, i) for i in range(4)]
        holds = [field.add(*map(field.times, eq, side)) for side in (p, q)] == [top, bottom]
        is_zero = field.add(*(field.over(a, b) for a, b in zip(p, q, strict=True))) == (0, 0)
        accepted += holds and not is_zero
    bound = (2 * 1 + 2 + 1) / field.p**2  # a round of degree two, the weight and two choices of a side
    assert accepted > 0
    assert least(accepted, trials) <= bound


def tiny(rows_of_w: Sequence[Sequence[int]] = ((1, 1, 0, 1), (-1, 0, -1, 1))) -> Example:
    """y = relu(v), v = w x: a product and a table of two columns; all of it below 11 / 2."""
    x, w = np.array([1, -1, 1, 1]), np.array(rows_of_w)
    v, rows = w @ x, np.arange(-2, 3)
    circuit = Circuit(
        (
            Source("x", (4,), "public"),
            Source("w", (2, 4), "weight"),
            Source("v", (2,), "witness"),
            Source("y", (2,), "public"),
        ),
        (Table("relu", (rows, np.maximum(rows, 0))),),
        (Lookup("relu", (2,), "relu", (read("v", 0), read("y", 0))),),
        (Identity("w x", (2,), (4,), ((read("w", 0, 1), read("x", 1)),), read("v", 0)),),
    )
    return Example(circuit, {"w": w}, {"x": x, "y": np.maximum(v, 0)}, {"v": v})


def accepts(field: Field, example: Example, mine: Used, seed: int) -> bool:
    """A whole run; what is left of all claims is compared with the committed numbers themselves."""
    said = told(example)
    theirs, coins = Numbers(field, source_shapes(said.circuit), said.known), dice(field, seed)
    try:
        sent = forge_claims(field, said, mine, dice(field, seed))
        claims = verify_lookups(said.circuit, theirs, sent.tree, coins) if sent.tree else Claims()
        claims += verify_identities(said.circuit, theirs, sent.sums, coins)
        form, value = combined(field, claims, coins.draw("claims")[0])
    except (ProofRejected, ZeroDivisionError):
        return False
    terms = (field.times(c, field.number(mine.witness[name].flat[at])) for (name, at), c in form.of.items())
    return field.add((0, 0), *terms) == value


WRONG = {
    "lookup": (changed(tiny(), "y", (1,), 1), lies("root", "layers", plants=True)),
    "factors": (changed(changed(tiny(), "v", (0,), 1), "y", (0,), 1), lies("factors", plants=True)),
    "output": (changed(changed(tiny(), "v", (0,), 1), "y", (0,), 1), lies("output", plants=True)),
    "honest": (changed(tiny(), "y", (1,), 1), lies()),
}


def test_what_is_true_always_passes() -> None:
    example = tiny()
    passed = [accepts(FIELDS[2], example, used(example), seed) for seed in range(100)]
    assert passed.count(False) <= 4  # a denominator, or a coordinate that a round divides by, is zero


@pytest.mark.parametrize("name", WRONG)
def test_a_whole_run_passes_within_its_bound(name: str) -> None:
    field, trials, (example, how) = FIELDS[1], 250, WRONG[name]
    mine = used(example, how=how)
    accepted = sum(accepts(field, example, mine, seed) for seed in range(trials))
    bound = degrees(example.circuit) / field.p**2
    assert least(accepted, trials) <= bound
    assert accepted or not how.plants


def test_denominators_of_zero_pass_only_without_their_check() -> None:
    """Two lookups of one key that is no row: at an alpha that makes both denominators zero, 0 / 0 is "zero"."""
    field, example = FIELDS[0], tiny(((1, 1, 0, 1), (1, 1, 0, 1)))
    wrong = replace(example, public={**example.public, "y": np.array([2, 2])})
    mine, seeds = used(wrong), range(200)
    kept = {seed for seed in seeds if accepts(field, wrong, mine, seed)}
    site = next(s for s in refusals([lookups], ("ProofRejected",)) if "denominators" in source_line(*s))
    with without(*site):
        passed = {seed for seed in seeds if accepts(field, wrong, mine, seed)}
    assert kept < passed
