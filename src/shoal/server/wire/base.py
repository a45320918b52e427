"""The two kinds of body, and types used all over."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""Of a function, a tool or a schema."""


class Wire(BaseModel):
    """A request body: unknown fields and near-miss types are refused. None of an optional field means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Answer(BaseModel):
    """A response body. Only fields that were set are sent, so that a null is sent exactly where it was meant."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def json_bytes(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()

    def plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)
