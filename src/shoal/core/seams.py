"""The two seams. Everything that can answer is a `Generate`; everything that needs more than a stream asks a `Session`.

They nest like ASGI middleware. Closing the iterator a `Generate` returned cancels the work all the way down, and
after the close returns nothing of the request remains. A third seam is added only by deleting one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, cast

from shoal.core.chunk import Chunk
from shoal.core.request import Request

if TYPE_CHECKING:
    import numpy as np

Generate = Callable[[Request], AsyncIterator[Chunk]]


def closing(chunks: AsyncIterator[Chunk]) -> aclosing[AsyncGenerator[Chunk, None]]:
    """A context that closes what a `Generate` returned, and so cancels the work, however it is left."""
    return aclosing(cast("AsyncGenerator[Chunk, None]", chunks))


class Session(Protocol):
    """A sequence of tokens whose state is kept, and can be forked without copying it.

    Every method raises `LocalError` when the engine has no room and `InvalidRequest` for tokens outside the
    vocabulary. After `drop` every method raises `LocalError`; `drop` twice is harmless.
    """

    @property
    def num_tokens(self) -> int:
        """Tokens in the context so far."""
        ...

    async def append(self, tokens: Sequence[int]) -> np.ndarray:
        """Add tokens; return float32 log-probabilities of the next one, shape (vocab,)."""
        ...

    async def fork(self) -> Session:
        """A second session with the same context. Shared state is copied only when one side writes to it."""
        ...

    async def score(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """Log-probability (nats) of each token given the context and the tokens before it; the context is unchanged."""
        ...

    async def hidden(self, tokens: Sequence[int], layer: int) -> np.ndarray:
        """Residual stream after `layer` (0: the embeddings) at each of `tokens` run after the context.

        float32, shape (len(tokens), hidden). The context is unchanged.
        """
        ...

    async def drop(self) -> None:
        """Free everything."""
        ...
