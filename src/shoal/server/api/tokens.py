"""POST /v1/tokenize and /v1/detokenize, in vLLM's shape."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from shoal.core.errors import InvalidRequest
from shoal.core.request import Message
from shoal.server import parse
from shoal.server.api.reply import json_response
from shoal.server.api.requests import check_size
from shoal.server.cancel import until_gone
from shoal.server.context import Context, record_of
from shoal.server.models import resolve
from shoal.server.wire.messages import to_messages
from shoal.server.wire.misc import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest


async def tokenize(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, TokenizeRequest, context.config)
    target = resolve(context, body.model)
    record_of(http).model = target.card.id
    text, special = _text(body)
    check_size(context, [text], "prompt" if isinstance(text, str) else "messages")
    tokens = await until_gone(http.receive, _call(context, target.model, text, special))
    length = target.card.context_length
    return json_response(TokenizeAnswer(count=len(tokens), max_model_len=length, tokens=tokens))


async def _call(context: Context, model: str, text: str | tuple[Message, ...], special: bool) -> list[int]:
    return await context.service.tokenize(model, text, special)


def _text(body: TokenizeRequest) -> tuple[str | tuple[Message, ...], bool]:
    """A chat template writes its special tokens itself, so for messages none are added unless asked for."""
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("expected either prompt or messages", "prompt")
    if body.messages is None and body.add_generation_prompt is not None:
        raise InvalidRequest("add_generation_prompt needs messages", "add_generation_prompt")
    special = body.messages is None if body.add_special_tokens is None else body.add_special_tokens
    return (body.prompt or "" if body.messages is None else to_messages(body.messages)), special


async def detokenize(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, DetokenizeRequest, context.config)
    target = resolve(context, body.model)
    record_of(http).model = target.card.id
    check_size(context, [tuple(body.tokens)], "tokens")
    return json_response(DetokenizeAnswer(prompt=await context.service.detokenize(target.model, body.tokens)))
