"""Requests of a recorded trace against an engine in this process."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from shoal.core.request import Constraint, Message, Request, Sampling
from shoal.node.compose import Node, compose
from shoal.node.config_sources import load
from shoal.node.fetch import ensure_model

COUNTER = itertools.count()


@asynccontextmanager
async def opened(model: Path | None, **options: Any) -> AsyncIterator[Node]:
    """The default model, or a GGUF file, in an engine with `options` of the node's configuration."""
    config = replace(load({}, os.environ).config, **options)
    if model is None:
        ensure_model(config)
    else:
        config = replace(config, model=str(model))
    async with compose(config) as node:
        yield node


async def answer(node: Node, asked: dict[str, Any]) -> tuple[str, list[int], float]:
    """Text, tokens, and seconds from the first token to the last."""
    sampling = Sampling(temperature=asked["temperature"], seed=7, max_tokens=asked["max_tokens"])
    constraint = Constraint("json_schema", asked["constraint"]) if asked["constraint"] else None
    messages = tuple(Message(message["role"], message["content"]) for message in asked["messages"])
    name = node.service.models()[0].id
    request = Request(f"b{next(COUNTER)}", name, messages, sampling, constraint=constraint)
    text, tokens, times = "", list[int](), list[float]()
    async for chunk in node.service.generate(request):
        times.append(time.perf_counter())
        text += chunk.text
        tokens += chunk.token_ids
    return text, tokens, times[-1] - times[0]
