"""POST /v1/embeddings: unit vectors as floats or base64 of little-endian float32."""

from __future__ import annotations

import base64

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from shoal.core.errors import InvalidRequest
from shoal.server import parse
from shoal.server.api.reply import json_response
from shoal.server.api.requests import check_choices, check_size
from shoal.server.cancel import until_gone
from shoal.server.context import Context, record_of
from shoal.server.models import resolve_for
from shoal.server.wire.completions import prompts_of
from shoal.server.wire.embeddings import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage


async def embed(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, EmbeddingRequest, context.config)
    target = resolve_for(context, body.model, "embedding")
    if target.adapter is not None:
        raise InvalidRequest("adapters have no embeddings of their own; name the base model", "model")
    inputs = prompts_of(body.input)
    check_size(context, inputs, "input")
    check_choices(context, len(inputs), "input")
    record = record_of(http)
    record.model, record.user = target.card.id, body.user
    answer = await until_gone(http.receive, _embed(context, body, target.model, inputs))
    record.prompt_tokens = answer.usage.prompt_tokens
    return json_response(answer)


async def _embed(
    context: Context, body: EmbeddingRequest, model: str, inputs: list[str | tuple[int, ...]]
) -> EmbeddingList:
    vectors, num_tokens = await context.service.embed(model, inputs)
    dimensions = int(vectors.shape[1])
    if body.dimensions not in (None, dimensions):
        message = f"{model} has {dimensions} dimensions and cannot be asked for {body.dimensions}"
        raise InvalidRequest(message, "dimensions")
    if body.encoding_format == "base64":
        rows: list[list[float] | str] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = [row.tolist() for row in vectors]
    data = [Embedding(object="embedding", index=index, embedding=row) for index, row in enumerate(rows)]
    usage = EmbeddingUsage(prompt_tokens=num_tokens, total_tokens=num_tokens)
    return EmbeddingList(object="list", data=data, model=model, usage=usage)
