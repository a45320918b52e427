"""/v1/embeddings: request and answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shoal.server.wire.base import Answer, Wire
from shoal.server.wire.completions import Prompts


class EmbeddingRequest(Wire):
    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
