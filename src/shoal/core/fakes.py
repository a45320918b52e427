"""Fakes of both seams, shipped so that every floor above is tested without an engine.

`scripted` answers from a script and records what it saw; `HashSession` is a tiny deterministic model: the next
token's distribution is a hash of the whole context, so a wrong context cannot go unnoticed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.request import Request

if TYPE_CHECKING:
    import numpy as np

Script = Callable[[Request], Sequence[Chunk | Exception | asyncio.Event]]
"""What to do for a request: yield a chunk, raise an error, or wait for an event."""


@dataclass(slots=True)
class ScriptedGenerate:
    """A `Generate` that follows a script. `seen`, `finished` and `cancelled` record request ids in order."""

    script: Script
    seen: list[Request] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def __call__(self, request: Request) -> AsyncIterator[Chunk]:
        self.seen.append(request)
        done = False
        try:
            for step in self.script(request):
                match step:
                    case Chunk():
                        yield step
                        await asyncio.sleep(0)
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        done = True
                        raise step
            done = True
            self.finished.append(request.request_id)
        finally:
            if not done:
                self.cancelled.append(request.request_id)


def words(*texts: str) -> Script:
    """A script that answers every choice with these texts, one chunk each, then stops."""

    def script(request: Request) -> list[Chunk | Exception | asyncio.Event]:
        steps: list[Chunk | Exception | asyncio.Event] = []
        for index in range(request.n):
            steps += [Chunk(index=index, text=text, token_ids=(position,)) for position, text in enumerate(texts)]
            steps.append(Chunk(index=index, finish_reason="stop"))
        usage = Usage(prompt_tokens=3, completion_tokens=len(texts) * request.n)
        return [*steps[:-1], Chunk(index=request.n - 1, finish_reason="stop", usage=usage)]

    return script


class HashSession:
    """A `Session` over a vocabulary of `vocab` ids, deterministic in its context."""

    def __init__(self, vocab: int = 32, tokens: Sequence[int] = ()) -> None:
        self._vocab = vocab
        self._tokens = list(tokens)
        self._dropped = False

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    async def append(self, tokens: Sequence[int]) -> np.ndarray:
        self._check(tokens)
        self._tokens += tokens
        return self._logprobs(self._tokens)

    async def fork(self) -> HashSession:
        self._check(())
        return HashSession(self._vocab, self._tokens)

    async def score(self, tokens: Sequence[int]) -> tuple[float, ...]:
        self._check(tokens)
        return tuple(
            float(self._logprobs([*self._tokens, *tokens[:position]])[token]) for position, token in enumerate(tokens)
        )

    async def hidden(self, tokens: Sequence[int], layer: int) -> np.ndarray:
        import numpy as np

        self._check(tokens)
        rows = [self._logprobs([layer, *self._tokens, *tokens[: position + 1]]) for position in range(len(tokens))]
        return np.stack(rows) if rows else np.zeros((0, self._vocab), np.float32)

    async def drop(self) -> None:
        self._dropped = True

    def _check(self, tokens: Sequence[int]) -> None:
        if self._dropped:
            raise LocalError("this session was dropped")
        if bad := [token for token in tokens if not 0 <= token < self._vocab]:
            raise InvalidRequest(f"token id {bad[0]} is outside the vocabulary of {self._vocab}", "prompt")

    def _logprobs(self, context: Sequence[int]) -> np.ndarray:
        import numpy as np

        seed = int.from_bytes(hashlib.sha256(repr(list(context)).encode()).digest()[:8], "little")
        logits = np.random.default_rng(seed).standard_normal(self._vocab).astype(np.float32)
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()), np.float32)
