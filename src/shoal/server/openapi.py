"""The OpenAPI 3.1 document, from the table of operations and the wire's models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from shoal import __version__
from shoal.server.routes import Operation
from shoal.server.wire.misc import ErrorBody

REFERENCE = "#/components/schemas/{model}"
COMMON = {
    400: "A parameter or header is wrong; `param` names it.",
    401: "No API key, or not one of ours.",
    403: "Host or Origin not allowed.",
    500: "A failure of ours.",
    503: "Not serving now; see Retry-After.",
}
WITH_ID = {404: "No such thing here."}
WITH_BODY = WITH_ID | {
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "The queue is full; see Retry-After.",
    501: "This build cannot do it.",
    502: "A peer sent something it should not have.",
    504: "The request's deadline passed.",
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    operations = tuple(operations)
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(_path(operation), {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shoal", "version": __version__, "description": "OpenAI-compatible inference."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _schemas(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """Requests as they are validated, answers as they are written. No two models share a name."""
    inputs = [operation.body for operation in operations if operation.body is not None]
    answers = [ErrorBody, *(operation.answer for operation in operations if operation.answer is not None)]
    wanted: list[tuple[type, Any, Any]] = [(model, "validation", _core(model)) for model in dict.fromkeys(inputs)]
    wanted += [(model, "serialization", _core(model)) for model in dict.fromkeys(answers)]
    _, schemas = GenerateJsonSchema(ref_template=REFERENCE).generate_definitions(wanted)
    return {str(name): schema for name, schema in schemas.items()}


def _core(model: type) -> Any:
    if issubclass(model, BaseModel):
        return model.__pydantic_core_schema__
    assert is_dataclass(model)
    return TypeAdapter(model).core_schema


def _operation(operation: Operation) -> dict[str, Any]:
    statuses = COMMON | (WITH_BODY if operation.body else WITH_ID if "{" in operation.path else {})
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": _success(operation)} | {str(key): _error(text) for key, text in sorted(statuses.items())},
    }
    if operation.path.startswith("/v1/") or operation.path == "/metrics":
        found["security"] = [{}, {"key": []}]
    if "{" in operation.path:
        name = _path(operation).partition("{")[2].partition("}")[0]
        schema = {"type": "string", "minLength": 1}
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema}]
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(operation.body)}}}
    return found


def _success(operation: Operation) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    content = {"application/json": {"schema": _ref(operation.answer)}} if operation.answer else text
    if operation.can_stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "Done.", "content": content}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref(ErrorBody)}}}


def _ref(model: type) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _path(operation: Operation) -> str:
    return operation.path.replace(":path}", "}")
