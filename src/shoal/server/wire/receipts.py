"""Receipts in answers, and POST /v1/verify."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shoal.server.wire.base import Answer, Wire

Base64 = Annotated[str, Field(min_length=1, max_length=32 * 2**20)]


class ReceiptAnswer(Answer):
    """Both are base64 of canonical CBOR. `receipt` may be shown to anybody; `opening` tells prompt and answer."""

    receipt: str
    opening: str


class ReceiptFields(Wire):
    receipt: Base64
    opening: Base64 | None = None


class VerifyRequest(Wire):
    """One receipt as an answer has it, or several of them, which are then also looked at as a chain."""

    receipt: Base64 | None = None
    opening: Base64 | None = None
    receipts: Annotated[list[ReceiptFields], Field(fail_fast=True, min_length=1, max_length=1024)] | None = None
