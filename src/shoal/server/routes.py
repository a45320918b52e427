"""The table of endpoints: routing and the OpenAPI document are both made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from shoal.core.receipt_view import ReceiptView, Verification
from shoal.core.service import EngineStats, MeshView, PingView
from shoal.server.api import adapters, chat, completions, embeddings, mesh, models, probes, receipts, responses, tokens
from shoal.server.context import Context
from shoal.server.wire.chat import ChatCompletion, ChatRequest
from shoal.server.wire.completions import Completion, CompletionRequest
from shoal.server.wire.embeddings import EmbeddingList, EmbeddingRequest
from shoal.server.wire.misc import (
    DetokenizeAnswer,
    DetokenizeRequest,
    Health,
    LoadAdapter,
    Model,
    ModelList,
    PingRequest,
    TokenizeAnswer,
    TokenizeRequest,
    UnloadAdapter,
)
from shoal.server.wire.receipts import VerifyRequest
from shoal.server.wire.responses import Deleted, ResponseObject, ResponseRequest

Handler = Callable[[Context, HttpRequest], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` is Starlette's, `name` the operation's id. No `answer`: plain text."""

    method: str
    path: str
    name: str
    handler: Handler
    summary: str
    body: type | None = None
    answer: type | None = None
    can_stream: bool = False


OPERATIONS = (
    Operation("POST", "/v1/chat/completions", "chat", chat.chat, "Answer a conversation",
              ChatRequest, ChatCompletion, can_stream=True),
    Operation("POST", "/v1/completions", "complete", completions.complete, "Continue one or several texts",
              CompletionRequest, Completion, can_stream=True),
    Operation("POST", "/v1/responses", "create_response", responses.create, "Answer, with items in and out",
              ResponseRequest, ResponseObject, can_stream=True),
    Operation("GET", "/v1/responses/{response_id}", "get_response", responses.retrieve, "A stored answer",
              None, ResponseObject),
    Operation("DELETE", "/v1/responses/{response_id}", "delete_response", responses.delete, "Forget a stored answer",
              None, Deleted),
    Operation("POST", "/v1/embeddings", "embed", embeddings.embed, "Texts as unit vectors",
              EmbeddingRequest, EmbeddingList),
    Operation("GET", "/v1/models", "list_models", models.list_models, "Served models and adapters", None, ModelList),
    Operation("GET", "/v1/models/{model_id:path}", "get_model", models.one_model, "One of them", None, Model),
    Operation("POST", "/v1/tokenize", "tokenize", tokens.tokenize, "Token ids of a text or conversation",
              TokenizeRequest, TokenizeAnswer),
    Operation("POST", "/v1/detokenize", "detokenize", tokens.detokenize, "The text of token ids",
              DetokenizeRequest, DetokenizeAnswer),
    Operation("POST", "/v1/load_lora_adapter", "load_adapter", adapters.load, "Load an adapter", LoadAdapter),
    Operation("POST", "/v1/unload_lora_adapter", "unload_adapter", adapters.unload, "Unload it", UnloadAdapter),
    Operation("GET", "/v1/receipts/{receipt_id:path}", "get_receipt", receipts.show, "A receipt this node signed",
              None, ReceiptView),
    Operation("POST", "/v1/verify", "verify", receipts.verify, "Look at receipts, whoever signed them",
              VerifyRequest, Verification),
    Operation("GET", "/v1/stats", "stats", probes.stats, "A snapshot of the engine", None, EngineStats),
    Operation("GET", "/v1/mesh", "mesh", mesh.show, "Peers, and who answered what", None, MeshView),
    Operation("POST", "/v1/mesh/ping", "ping", mesh.ping, "Round trips to a peer", PingRequest, PingView),
    Operation("GET", "/healthz", "healthz", probes.healthz, "The process is alive", None, Health),
    Operation("GET", "/readyz", "readyz", probes.readyz, "Requests are accepted", None, Health),
    Operation("GET", "/metrics", "metrics", probes.metrics, "Prometheus metrics"),
)  # fmt: skip
