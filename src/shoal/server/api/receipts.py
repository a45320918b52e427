"""Receipts: GET /v1/receipts/{id} shows one of this node's, POST /v1/verify looks at anybody's."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest
from shoal.core.receipt import Signed
from shoal.core.receipt_view import Receipts
from shoal.server import parse
from shoal.server.context import Context, record_of
from shoal.server.errors import Refused
from shoal.server.wire.ranking import plain_ranking
from shoal.server.wire.receipts import VerifyRequest


async def show(context: Context, http: HttpRequest) -> ASGIApp:
    """With its opening for as long as this process keeps it, for whoever asked: the key that could read the answer."""
    name = http.path_params["receipt_id"]
    found = await _receipts(context).find(name)
    if found is not None and not context.owners.is_owner(found.request_id, record_of(http).owner):
        found = replace(found, opening=None)
    if found is None:
        raise Refused(404, "receipt_not_found", f"no receipt of {name[:80]!r} is kept here", "receipt_id")
    return JSONResponse(asdict(found))


async def verify(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, VerifyRequest, context.config)
    if (body.receipt is None) == (body.receipts is None):
        raise InvalidRequest("expected one of receipt and receipts", "receipt")
    if body.opening is not None and body.receipt is None:
        raise InvalidRequest("opening belongs to receipt; receipts have their own", "opening")
    pairs = [(item.receipt, item.opening) for item in body.receipts or ()]
    pairs += [(body.receipt, body.opening)] if body.receipt is not None else []
    return JSONResponse(asdict(await _receipts(context).verify(pairs)))


def told(context: Context, chunk: Chunk) -> dict[str, Any]:
    """The fields `receipt` and `ranking` of an answer, where this chunk carries them."""
    ranking = {} if chunk.ranking is None else {"ranking": plain_ranking(chunk.ranking)}
    if chunk.receipt is None or context.service.receipts is None:
        return ranking
    return {"receipt": context.service.receipts.encode(Signed(chunk.receipt, chunk.opening)), **ranking}


def _receipts(context: Context) -> Receipts:
    if context.service.receipts is None:
        raise Refused(404, "receipts_unknown", "this server knows no receipts")
    return context.service.receipts
