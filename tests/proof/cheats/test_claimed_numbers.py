"""A claimed output is the number that is checked, not its neighbour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.proof.artifacts_manifest import Port
from shoal.proof.artifacts_numbers import from_claim
from shoal.proof.rejected import ProofRejected

PORT = Port("y", "y", (1,), 0, -(1 << 62), 1 << 62)


@pytest.mark.parametrize("claimed", [(1 << 53) + 1, -(1 << 53) - 1, np.uint64((1 << 61) + 1)])
def test_integers_that_no_double_holds(claimed: int) -> None:
    with pytest.raises(ProofRejected, match="at most 53 bits"):
        from_claim((PORT,), {"y": np.array([claimed])})


def test_a_scale_above_one_hides_no_bit() -> None:
    """2^53 + 1, where outputs are multiples of 4, as a double is one."""
    with pytest.raises(ProofRejected, match="at most 53 bits"):
        from_claim((replace(PORT, fraction=-2),), {"y": np.array([(1 << 53) + 1])})


@pytest.mark.parametrize("claimed", [(1 << 53) - 1, 1 - (1 << 53), 0, 5.0])
def test_numbers_that_doubles_hold(claimed: float) -> None:
    assert from_claim((PORT,), {"y": np.array([claimed])})["y"].tolist() == [int(claimed)]


@pytest.mark.parametrize("claimed", [0.5, 2.0**53, 2.0**63, -(2.0**63)])
def test_numbers_the_model_cannot_give(claimed: float) -> None:
    with pytest.raises(ProofRejected, match="expected a multiple"):
        from_claim((PORT,), {"y": np.array([claimed])})
