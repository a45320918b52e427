"""Limbs hold exactly the bits they should, and the plan is no worse than the obvious ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.proof.lower.limbs import MAX_WIDTH, candidates, plan


@given(st.integers(1, 62))
def test_candidates_hold_the_bits_and_no_more(bits: int) -> None:
    assert candidates(bits)
    for widths in candidates(bits):
        assert max(widths) <= MAX_WIDTH
        assert sum(widths) == bits


@given(st.dictionaries(st.integers(1, 40), st.integers(1, 10**6), min_size=1, max_size=5))
def test_the_plan_is_no_worse_than_simple_ones(counts: dict[int, int]) -> None:
    def cost(found: dict[int, tuple[int, ...]]) -> int:
        tables = {width for widths in found.values() for width in widths}
        return sum(counts[bits] * len(widths) for bits, widths in found.items()) + sum(2**width for width in tables)

    fewest = {bits: min(candidates(bits), key=len) for bits in counts}
    shortest = {bits: max(candidates(bits), key=len) for bits in counts}
    assert cost(plan(counts)) <= min(cost(fewest), cost(shortest))


def test_tables_are_short_for_few_numbers_and_long_for_many() -> None:
    assert max(plan({16: 10})[16]) <= 6
    assert plan({16: 10_000}) == {16: (8, 8)}
    assert plan({16: 10_000_000}) == {16: (16,)}
    assert plan({18: 5_000, 22: 5_000}) == {18: (9, 9), 22: (11, 11)}
