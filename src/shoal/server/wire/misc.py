"""Small bodies: errors, models, tokens, adapters, probes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shoal.server.wire.base import Answer, TokenId, Wire
from shoal.server.wire.messages import Messages

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class ErrorObject(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Answer):
    error: ErrorObject


class Model(Answer):
    """OpenAI's four fields, vLLM's `parent` and `max_model_len`, and what else is known."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: str | None
    root: str
    max_model_len: int | None
    family: str | None
    quantization: str | None
    size_bytes: int | None
    capabilities: list[str]


class ModelList(Answer):
    object: Literal["list"]
    data: list[Model]


class TokenizeRequest(Wire):
    """vLLM's: `prompt` or `messages`, not both. A conversation always ends with the generation prompt."""

    model: ModelName
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: Literal[True] | None = None


class TokenizeAnswer(Answer):
    count: int
    max_model_len: int | None
    tokens: list[int]


class DetokenizeRequest(Wire):
    model: ModelName
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


class DetokenizeAnswer(Answer):
    prompt: str


class LoadAdapter(Wire):
    """vLLM's."""

    lora_name: AdapterName
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]


class UnloadAdapter(Wire):
    lora_name: AdapterName


class Health(Answer):
    status: Literal["ok", "ready"]


class PingRequest(Wire):
    """`peer`: its id, whole."""

    peer: Annotated[str, Field(min_length=1, max_length=64)]
