"""Our OpenAPI document and our answers agree, on bodies schemathesis draws from the document: bounded and seeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from shoal.server import ServerConfig
from shoal.server.routes import OPERATIONS, Operation

pytestmark = pytest.mark.real
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


SERVED = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
"""What the document cannot say: which names are served, and what a message of each role needs."""

CASES = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
CASES += [(operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation.body is not None]


@pytest.fixture(scope="module")
def document(start: Callable[..., Any]) -> Any:
    url = start(config=ServerConfig(adapter_loading=True, log_format="off")).url
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(("operation", "mode"), CASES, ids=lambda value: getattr(value, "name", value))
def test_answers_conform(document: Any, operation: Operation, mode: GenerationMode) -> None:
    """Negative bodies break the document; each must be refused."""
    described = document[operation.path.replace(":path}", "}")][operation.method]

    @settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=described.as_strategy(generation_mode=mode))
    def conforms(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and operation.body is not None:
            case.body |= {name: value for name, value in SERVED.items() if name in case.body}
        case.call_and_validate(checks=CHECKS)

    conforms()


def test_the_document_lists_every_endpoint(document: Any) -> None:
    paths = document.raw_schema["paths"]
    assert {"/v1/chat/completions", "/v1/models/{model_id}", "/metrics", "/readyz"} <= set(paths)
    assert set(paths["/v1/responses/{response_id}"]) == {"get", "delete"}
