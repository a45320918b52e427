"""Checking drafts without changing answers: sample as ever, and go on while the draft had said the same.

Row i of a sequence's outputs follows its last certain token and the first i tokens of its draft. The token of each
position is sampled from the target's own logits with that position's own random number (a hash of seed, choice and
position, see `sampler.uniform`), so it is the token that would have been sampled without a draft, whatever the sampling
parameters, penalties, grammar or bias: their state only ever sees tokens that were really sampled. A row counts only
if the draft before it equals what was sampled. Hence the output is identical with and without drafts, given that the
runner's logits do not depend on which rows share a step, as those of the C kernels do not.

This accepts a draft token x with the target's probability p(x). Speculative sampling (Leviathan et al. 2023; Chen et
al. 2023) reaches no more for a drafter that proposes one certain token, and would give up the equality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shoal.engine.sampler import Sampled, SamplerState, sample, sample_best


def verify(
    logits: np.ndarray, drafted: Sequence[int], state: SamplerState, best: Sequence[int] = ()
) -> Iterator[Sampled]:
    """Tokens of consecutive positions, accepted by `state`: those that equal `drafted`, and the first after them.

    logits (rows, vocab); row 0 decides the position of drafted[0]. best: of each row, or of none (see `Outputs`). Ends
    early where the rows do. Stop iterating and nothing more is sampled.
    """
    for row in range(len(logits)):
        sampled = sample_best(best[row], state) if best else None
        if sampled is None:
            (sampled,) = sample(logits[row : row + 1], (state,))
        state.accept(sampled.token_id)
        yield sampled
        if row >= len(drafted) or drafted[row] != sampled.token_id:
            return
