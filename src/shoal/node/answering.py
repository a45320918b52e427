"""One way to ask for `run` and `chat`: an engine in this process, or a server somewhere else. Both are a `Generate`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shoal.core.chunk import FinishReason, Usage
from shoal.core.request import Constraint, Message, Request, Sampling
from shoal.core.seams import Generate
from shoal.node.config import NodeConfig
from shoal.node.remote import Server, first_model, remote_generate
from shoal.node.terminal import write


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers: `generate`, the model to name in requests, and whether it understands messages."""

    generate: Generate
    model: str
    can_chat: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where answers come from: the server at `url`, or this process where it is None. `key` is sent to a server."""

    url: str | None = None
    key: str | None = None
    model: str | None = None


def prepare(config: NodeConfig, place: Place) -> None:
    """Pull a known model that is missing. Outside of any event loop, so that Ctrl-C stops it at once."""
    from shoal.node.fetch import ensure_model

    if place.url is None:
        ensure_model(config)


@asynccontextmanager
async def answering(config: NodeConfig, place: Place) -> AsyncIterator[Answerer]:
    """An `Answerer`, for as long as the block lasts."""
    if place.url is not None:
        server = Server(place.url, place.key)
        yield Answerer(remote_generate(server), place.model or await first_model(server), can_chat=True)
        return
    from shoal.node.compose import compose

    async with compose(config) as node:
        card = node.service.models()[0]
        yield Answerer(node.service.generate, card.id, "chat" in card.capabilities)


@dataclass(frozen=True, slots=True)
class Question:
    messages: tuple[Message, ...]
    sampling: Sampling
    constraint: Constraint | None = None


@dataclass(slots=True)
class Answer:
    """What has come so far."""

    model: str
    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


async def ask(answerer: Answerer, question: Question, is_shown: bool) -> Answer:
    """The whole answer, written to stdout while it comes if `is_shown`. Cancelling cancels the work."""
    answer = Answer(answerer.model)
    stream = answerer.generate(_request(answerer, question))
    try:
        async for chunk in stream:
            answer.text += chunk.text
            answer.finish_reason = chunk.finish_reason or answer.finish_reason
            answer.usage = chunk.usage or answer.usage
            if is_shown and chunk.text:
                write(chunk.text)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return answer


def _request(answerer: Answerer, question: Question) -> Request:
    """A model without a chat template gets the messages' plain text."""
    messages = question.messages
    prompt = messages if answerer.can_chat else "\n\n".join(message.content for message in messages)
    request_id = f"cli-{secrets.token_hex(8)}"
    return Request(request_id, answerer.model, prompt, question.sampling, constraint=question.constraint)
