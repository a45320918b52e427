"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, in vLLM's shape (the answer is a sentence).

What this does not protect against: whoever may load adapters can make the server open any folder its user can read.
Therefore `ServerConfig.adapter_loading` is off unless asked for.
"""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from shoal.core.errors import BadWeights, InvalidRequest
from shoal.server import parse
from shoal.server.context import Context
from shoal.server.errors import Refused
from shoal.server.models import resolve
from shoal.server.wire.misc import LoadAdapter, UnloadAdapter


async def load(context: Context, http: HttpRequest) -> ASGIApp:
    _check_allowed(context)
    body = await parse.read(http, LoadAdapter, context.config)
    names = [*context.config.model_aliases, *(card.id for card in context.service.models())]
    if body.lora_name in names:
        raise InvalidRequest(f"{body.lora_name!r} is served already; unload it first", "lora_name")
    try:
        card = await context.service.load_adapter(body.lora_name, body.lora_path)
    except BadWeights as error:  # here the client chose the file
        raise InvalidRequest(str(error), "lora_path", error.code) from error
    return PlainTextResponse(f"Success: LoRA adapter '{card.id}' added successfully.")


async def unload(context: Context, http: HttpRequest) -> ASGIApp:
    _check_allowed(context)
    body = await parse.read(http, UnloadAdapter, context.config)
    if resolve(context, body.lora_name).adapter is None:
        raise InvalidRequest(f"{body.lora_name!r} is a base model, not an adapter", "lora_name")
    await context.service.unload_adapter(body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _check_allowed(context: Context) -> None:
    if not context.config.adapter_loading:
        raise Refused(403, "adapter_loading_disabled", "this server does not load adapters for its clients")
