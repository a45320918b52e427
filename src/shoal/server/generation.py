"""Several core Requests as one stream of chunks, observed on the way.

Choices of request i are numbered i*n to i*n + n-1; only the very last chunk carries usage, the sum. Closing the stream
closes every iterator under it before it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk, Measured, Usage
from shoal.core.errors import LocalError
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.server.context import Context, Record

BUFFERED_CHUNKS = 64
"""Between the merged iterators and a slow reader."""


async def run(context: Context, record: Record, requests: Sequence[Request]) -> AsyncGenerator[Chunk]:
    """Chunks of all `requests`, as if they were one. LocalError for a stream that breaks the rules of `core.chunk`."""
    watch = _Watch(context, record, _label(context, requests[0].adapter or requests[0].model))
    context.owners.note([request.request_id for request in requests], record.owner)
    total: Usage | None = None
    num_open = len(requests)
    try:
        async with aclosing(_numbered(context.service.generate, requests)) as chunks:
            async for position, chunk in chunks:
                if chunk.usage is not None:
                    num_open -= 1
                    total = chunk.usage if total is None else _sum(total, chunk.usage)
                chunk = replace(
                    chunk,
                    index=position * requests[0].n + chunk.index,
                    usage=total if chunk.usage is not None and num_open == 0 else None,
                )
                watch.see(chunk)
                yield chunk
        if num_open:
            raise LocalError("the answer broke off before its end")
    except (GeneratorExit, asyncio.CancelledError):
        watch.aborted()
        raise


def _numbered(generate: Generate, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Chunk]]:
    return _one(generate, requests[0]) if len(requests) == 1 else _merged(generate, requests)


async def _one(generate: Generate, request: Request) -> AsyncGenerator[tuple[int, Chunk]]:
    chunks = generate(request)
    try:
        async for chunk in chunks:
            yield 0, chunk
    finally:
        await _close(chunks)


async def _merged(generate: Generate, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Chunk]]:
    queue: asyncio.Queue[tuple[int, Chunk] | Exception | None] = asyncio.Queue(BUFFERED_CHUNKS)
    pumps = [asyncio.create_task(_pump(generate, i, request, queue)) for i, request in enumerate(requests)]
    num_open = len(pumps)
    try:
        while num_open:
            match await queue.get():
                case None:
                    num_open -= 1
                case Exception() as error:
                    raise error
                case item:
                    yield item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    generate: Generate, position: int, request: Request, queue: asyncio.Queue[tuple[int, Chunk] | Exception | None]
) -> None:
    try:
        async with aclosing(_one(generate, request)) as chunks:
            async for _, chunk in chunks:
                await queue.put((position, chunk))
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)


async def _close(chunks: AsyncIterator[Chunk]) -> None:
    """A `Generate` may return any iterator; one without `aclose` holds nothing that must be given back."""
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()
    elif (aclose := getattr(chunks, "aclose", None)) is not None:
        await aclose()


def _sum(a: Usage, b: Usage) -> Usage:
    """Counts and costs add up; the first token is the earlier one, the end the later one."""
    return Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.cached_tokens + b.cached_tokens,
        _known(max, a.queue_s, b.queue_s),
        _known(min, a.ttft_s, b.ttft_s),
        _known(max, a.duration_s, b.duration_s),
        _add(a.energy_j, b.energy_j),
        _add(a.water_l, b.water_l),
        _add(a.carbon_g, b.carbon_g),
        _add(a.cost_usd, b.cost_usd),
        tuple(dict.fromkeys((*a.providers, *b.providers))),
    )


def _known(pick: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else pick(a, b)


def _add(a: Measured | None, b: Measured | None) -> Measured | None:
    if a is None or b is None:
        return None
    uncertainty = None if a.uncertainty is None or b.uncertainty is None else a.uncertainty + b.uncertainty
    return Measured(a.value + b.value, a.source if a.source == b.source else f"{a.source}+{b.source}", uncertainty)


@dataclass(slots=True)
class _Watch:
    """Feeds metrics and the log's record. Times are this server's, from the arrival of the HTTP request."""

    context: Context
    record: Record
    model: str
    first: float | None = None

    def see(self, chunk: Chunk) -> None:
        metrics, now = self.context.metrics, self.context.clock.monotonic()
        if self.first is None and (chunk.text or chunk.token_ids or chunk.tool_calls):
            self.first = now
            self.record.ttft_s = now - self.record.started
            metrics.ttft.labels(self.model).observe(self.record.ttft_s)
        if chunk.finish_reason is not None:
            self.record.finish_reasons.append(chunk.finish_reason)
            metrics.success.labels(self.model, chunk.finish_reason).inc()
        if chunk.usage is not None:
            self._end(chunk.usage, now)

    def _end(self, usage: Usage, now: float) -> None:
        metrics, record, model = self.context.metrics, self.record, self.model
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        record.cached_tokens = usage.cached_tokens
        metrics.latency.labels(model).observe(now - record.started)
        metrics.prompt.labels(model).observe(usage.prompt_tokens)
        metrics.generation.labels(model).observe(usage.completion_tokens)
        if usage.queue_s is not None:
            metrics.queue.labels(model).observe(usage.queue_s)
        for unit, cost in _costs(usage):
            metrics.cost.labels(model, unit, _kind(cost)).inc(cost.value)
        if self.first is not None and usage.completion_tokens > 1:
            metrics.tpot.labels(model).observe((now - self.first) / (usage.completion_tokens - 1))

    def aborted(self) -> None:
        if self.record.completion_tokens is None:
            self.context.metrics.aborted.labels(self.model).inc()


def _costs(usage: Usage) -> Iterator[tuple[str, Measured]]:
    """What was read or modelled, by unit."""
    units = {"joules": usage.energy_j, "litres": usage.water_l, "grams_co2e": usage.carbon_g, "usd": usage.cost_usd}
    return ((unit, cost) for unit, cost in units.items() if cost is not None)


def _kind(cost: Measured) -> str:
    """The first word of the source, a label of few values: rapl, nvml, battery, modelled; others' words are theirs."""
    word = cost.source.partition(":")[0].partition(" ")[0]
    return word if word in ("rapl", "nvml", "battery", "modelled") else "other"


def _label(context: Context, model: str) -> str:
    """A listed name; models that clients compose are counted together, or they could make labels without end."""
    return model if any(card.id == model for card in context.service.models()) else "composed"
