"""The `Generate` over all providers: the best one answers; when it fails, even in the middle, the next one goes on.

    ranked providers --best--> chunks --recorded--> caller
                       ^ fails                |
                       +------ rest of the answer asked of the next one

Rules that stay true in this file:
- a caller never sees a token twice or misses one, whoever fails when;
- an error that is the request's own fault is raised at once when our engine says so; when a peer says so another is
  asked first, because a peer may be wrong or older;
- every provider is asked at most once for one request, or again after it was only busy.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import (
    DeadlineExceeded,
    LinkClosed,
    LocalError,
    ModelNotFound,
    Overloaded,
    PeerFault,
    RemoteError,
    ShoalError,
    Unavailable,
    Unreachable,
)
from shoal.core.request import Request
from shoal.core.seams import closing
from shoal.fleet.affinity import Affinity
from shoal.fleet.busy import Busy
from shoal.fleet.cost import Bid, rank
from shoal.fleet.health import Health
from shoal.fleet.progress import Progress
from shoal.fleet.provider import Directory, Provider

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """Who was asked for what, why, and how it ended; for `shoal trace`, the console and metrics."""

    request_id: str
    provider: str
    why: str
    outcome: str
    num_tokens: int


async def nobody_more(model: str) -> bool:
    """`Router.discover` where the directory is all there is."""
    return False


@dataclass(slots=True)
class Router:
    """`decided` is told each decision once it is over. `allowed` filters providers per request (policy, privacy).

    discover  asked for a model that nobody in the directory serves, once per request; True if it may be there now.
    """

    directory: Directory
    clock: Clock
    decided: Callable[[Decision], None]
    allowed: Callable[[Request, Provider], bool]
    health: Health
    affinity: Affinity
    discover: Callable[[str], Awaitable[bool]] = nobody_more

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """See `core.seams`. Raises the last provider's error when none is left; ModelNotFound when none serves it."""
        request = _with_seed(request)
        progress, tried, errors = Progress(request), set[str](), list[ShoalError]()
        busy = Busy(self.clock.monotonic(), request.deadline)
        while not progress.is_whole:
            bid = self._best(request, progress, tried)
            if bid is None and not tried and await self.discover(request.model):
                bid = self._best(request, progress, tried)
            if bid is None:
                pause_s = busy.pause_s(progress.is_begun, self.clock.monotonic())
                if pause_s is None:
                    raise self._give_up(request, tried, errors)
                await self.clock.sleep(pause_s)
                tried -= busy.free(self.clock.monotonic())
                continue
            tried.add(bid.provider.name)
            try:
                async with closing(self._ask(request, bid, progress)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except ShoalError as error:
                if request.resume is None and getattr(error, "param", None) == "resume":
                    error = self._blame_tokens(progress, error)
                    if progress.forget_tokens():
                        tried.discard(bid.provider.name)
                        continue
                errors.append(self._judge(request, bid.provider, error))
                busy.note(bid.provider, error, self.clock.monotonic())

    def _blame_tokens(self, progress: Progress, error: ShoalError) -> ShoalError:
        """Nobody can go on with these tokens: the fault of those who said them, not of the request or the next one."""
        for name in progress.providers:
            self.health.failed(name, f"its tokens are none: {error}", self.clock.monotonic())
        return Unavailable(f"what was answered so far is no beginning of an answer: {error}")

    def _best(self, request: Request, progress: Progress, tried: set[str]) -> Bid | None:
        """The best provider not yet asked; those that failed lately only when there is no other."""
        now = self.clock.monotonic()
        usable = [
            provider
            for provider in self.directory()
            if provider.name not in tried and self.allowed(request, provider) and _can_go_on(provider, progress)
        ]
        bids = rank(request, usable, lambda name: self.affinity.share(name, request))
        return next((bid for bid in bids if not self.health.is_out(bid.provider.name, now)), bids[0] if bids else None)

    async def _ask(self, request: Request, bid: Bid, progress: Progress) -> AsyncIterator[Chunk]:
        name, outcome, num_tokens = bid.provider.name, "cancelled", 0
        try:
            async with closing(_merged(bid.provider, progress.rest())) as chunks:
                async for chunk in chunks:
                    num_tokens += len(chunk.token_ids)
                    yield progress.add(chunk, name)
            if not progress.is_whole:
                raise PeerFault("the answer ended without a finish reason")
            self.health.succeeded(name)
            self.affinity.note(name, request)
            outcome = "answered"
        except ShoalError as error:
            outcome = f"{'busy' if isinstance(error, Overloaded) else 'failed'}: {error}"
            raise
        except Exception as error:
            outcome = "failed: internal error"
            if bid.provider.kind == "local":
                raise
            _log.exception("%s failed", name)  # a bug met by what it sent must not end the request
            raise LocalError(f"internal error: {type(error).__name__}") from error
        finally:
            self.decided(Decision(request.request_id, name, bid.why, outcome, num_tokens))

    def _judge(self, request: Request, provider: Provider, error: ShoalError) -> ShoalError:
        """Whether to go on elsewhere after `error`: returns it if so, else raises it."""
        now = self.clock.monotonic()
        is_late = request.deadline is not None and now >= request.deadline
        is_requests_fault = isinstance(error, RemoteError) and not isinstance(error, PeerFault)
        is_final = is_requests_fault and provider.kind == "local" and not isinstance(error, ModelNotFound)
        if is_final or (is_late and isinstance(error, DeadlineExceeded)):
            raise error
        if isinstance(error, Overloaded):
            self.health.busy(provider.name, str(error), now + error.retry_after_s)
        elif not is_requests_fault:
            _log.warning("%s failed, going on elsewhere: %s", provider.name, error)
            self.health.failed(provider.name, str(error), now)
            self.affinity.forget(provider.name)
        return error

    def _give_up(self, request: Request, tried: set[str], errors: list[ShoalError]) -> ShoalError:
        if not tried:
            return ModelNotFound(request.model, tuple(sorted({m for p in self.directory() for m in p.models})))
        faults = [error for error in errors if isinstance(error, RemoteError) and not isinstance(error, PeerFault)]
        blame = [error for error in errors if isinstance(error, LocalError)]
        if faults and not blame:
            return faults[0]
        last = blame[-1] if blame else errors[-1]
        return (
            _gone(request.model, len(tried), last) if isinstance(last, (LinkClosed, Unreachable, PeerFault)) else last
        )


def _gone(model: str, num_tried: int, last: ShoalError) -> Unavailable:
    """To whoever asked us, a provider that went away or talks nonsense is a service that is not there now."""
    asked = "the provider that was asked" if num_tried == 1 else f"each of the {num_tried} providers that were asked"
    advice = "try again in a moment; `shoal peers` shows who is there"
    return Unavailable(f"{model!r} cannot be answered now: {asked} failed ({last}); {advice}")


def _with_seed(request: Request) -> Request:
    """With a seed of its own, so that whoever goes on with the answer draws the same numbers."""
    if request.sampling.seed is not None or request.sampling.temperature == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))


def _can_go_on(provider: Provider, progress: Progress) -> bool:
    if not progress.is_begun:
        return True
    if provider.resumes == "tokens":
        return progress.has_tokens or progress.can_go_on_from_text
    return provider.resumes == "text" and progress.can_go_on_from_text


async def _merged(provider: Provider, requests: list[Request]) -> AsyncIterator[Chunk]:
    """Chunks of all these requests as they come; the first error ends them all."""
    if len(requests) == 1:
        async with closing(provider.generate(requests[0])) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    queue: asyncio.Queue[Chunk | ShoalError | None] = asyncio.Queue(64)

    async def pump(request: Request) -> None:
        try:
            async with closing(provider.generate(request)) as chunks:
                async for chunk in chunks:
                    await queue.put(chunk)
            await queue.put(None)
        except ShoalError as error:
            await queue.put(error)
        except Exception as error:  # a bug in one provider must not hang the request
            _log.exception("%s failed", provider.name)
            await queue.put(LocalError(f"internal error: {error}"))

    tasks = [asyncio.create_task(pump(request)) for request in requests]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, ShoalError):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
