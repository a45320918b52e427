"""How far approximate inference is with one sequence. Plain data; the scheduler and the approximator change it.

    tokens    [ 0 .......................... at ) [ at ................ )
    computed    whole, or `depth` layers of it    on what the approximator kept

The sequence pauses at `at`: nothing behind is computed before the approximator has acted. What it decided (`kept`,
`neurons`) outlives a preemption, so a sequence that is computed again ends up with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shoal.core.request import Approximation


@dataclass(slots=True, eq=False)
class Stage:
    """Of one sequence.

    wanted   what the request allows to leave out.
    at       tokens computed before the approximator acts.
    depth    layers those are computed with; 0: all.
    is_done  the approximator has acted on the blocks the sequence holds.
    dropped  positions before `at` whose keys and values are gone from them.
    slot     of the runner's core neurons that tokens from `at` on are computed with, or -1.
    kept     int32 (layers, kv heads, count): positions whose keys and values stay, once chosen.
    neurons  int32 (layers, count): core neurons, once chosen.
    """

    wanted: Approximation
    at: int
    depth: int = 0
    is_done: bool = False
    dropped: int = 0
    slot: int = -1
    kept: np.ndarray | None = None
    neurons: np.ndarray | None = None

    @property
    def num_shareable(self) -> int:
        """Leading positions whose keys and values are those of the whole model: only these are shared or looked up."""
        return 0 if self.depth else self.at

    @property
    def is_apart(self) -> bool:
        """Whether its rows cannot run in one batch with everybody's."""
        return self.slot >= 0 if self.is_done else self.depth > 0

    def lose_blocks(self) -> None:
        """Everything is computed again, and acted on again."""
        self.is_done, self.dropped, self.slot = False, 0, -1

    def copy(self) -> Stage:
        """Of a fork: the same state over the same blocks."""
        return replace(self)
