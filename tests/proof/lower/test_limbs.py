"""Limbs check what they must, and the plan is no worse than the obvious ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.proof.lower.limbs import MAX_WIDTH, Demand, candidates, plan

demands = st.builds(Demand, st.integers(1, 40), st.booleans())


@given(demands)
def test_candidates_hold_the_bits(demand: Demand) -> None:
    for widths in candidates(demand):
        assert max(widths) <= MAX_WIDTH
        assert sum(widths) == demand.bits if demand.exact else sum(widths) >= demand.bits


@given(st.dictionaries(demands, st.integers(1, 10**6), min_size=1, max_size=5))
def test_the_plan_is_no_worse_than_simple_ones(counts: dict[Demand, int]) -> None:
    def cost(found: dict[Demand, tuple[int, ...]]) -> int:
        tables = {width for widths in found.values() for width in widths}
        return sum(counts[d] * len(w) for d, w in found.items()) + sum(2**width for width in tables)

    fewest = {d: min(candidates(d), key=len) for d in counts}
    shortest = {d: min(candidates(d), key=max) for d in counts}
    assert cost(plan(counts)) <= min(cost(fewest), cost(shortest))


def test_tables_are_short_for_few_numbers_and_long_for_many() -> None:
    demand = Demand(16, True)
    assert plan({demand: 10}) == {demand: (3, 3, 3, 3, 2, 2)} or max(plan({demand: 10})[demand]) <= 6
    assert plan({demand: 10_000})[demand] == (8, 8)
    assert plan({demand: 10_000_000})[demand] == (16,)
