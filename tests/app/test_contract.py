"""The server keeps to its own OpenAPI document, whatever is sent (Schemathesis)."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

from xretrieve.app.app import create_app  # noqa: E402
from xretrieve.app.settings import Settings  # noqa: E402

EXAMPLES = 8  # per operation: a look, not a campaign
KEPT = [not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection, checks.unsupported_method]  # fmt: skip


@pytest.fixture(scope="module")
def app(served):
    return create_app(served, Settings(hosts="testserver"))


@pytest.fixture(scope="module")
def api_schema(app):
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_keeps_to_the_document(api_schema, mode):
    tried = []
    for found in api_schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                  phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case):
            case.call_and_validate(checks=KEPT)
            tried.append(case.operation.label)

        try:
            keeps()
        except Unsatisfiable:  # nothing about a request without parameters can be wrong
            assert mode is GenerationMode.NEGATIVE and operation.label.startswith("GET /")
    assert len(set(tried)) >= (13 if mode is GenerationMode.POSITIVE else 9)


def test_the_document_names_every_path_and_how_errors_look(app):
    document = app.openapi()
    assert set(document["paths"]) == {
        "/api/search", "/api/search/upload", "/api/explain", "/api/pictures", "/api/sessions",
        "/api/sessions/{session}", "/api/sessions/{session}/add", "/api/sessions/{session}/undo",
        "/api/sessions/{session}/ranking", "/api/health", "/api/info", "/metrics",
    }  # fmt: skip
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert about["description"], (method, path)
            assert about["responses"]["503"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
