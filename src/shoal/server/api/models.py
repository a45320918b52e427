"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from shoal.core.service import ModelCard
from shoal.server.api.reply import json_response
from shoal.server.context import Context
from shoal.server.models import resolve
from shoal.server.wire.misc import Model, ModelList


async def list_models(context: Context, http: HttpRequest) -> ASGIApp:
    return json_response(ModelList(object="list", data=[_model(card) for card in context.service.models()]))


async def one_model(context: Context, http: HttpRequest) -> ASGIApp:
    return json_response(_model(resolve(context, http.path_params["model_id"]).card))


def _model(card: ModelCard) -> Model:
    return Model(
        id=card.id,
        object="model",
        created=card.created,
        owned_by=card.owned_by,
        parent=card.parent,
        root=card.parent or card.id,
        max_model_len=card.context_length,
        family=card.family,
        quantization=card.quantization,
        size_bytes=card.size_bytes,
        capabilities=list(card.capabilities),
    )
