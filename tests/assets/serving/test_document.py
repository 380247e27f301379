"""Property tests from the service's OpenAPI document: what it answers is what it says that it answers."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.assets.serving.conftest import TOKEN


@pytest.fixture
def document(address: str) -> Any:
    return schemathesis.openapi.from_url(
        f"{address}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}
    )


schema = schemathesis.pytest.from_fixture("document")


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document(case: Any) -> None:
    # A text can fit the schema and be no filter of the table's columns, or no version of the store.
    case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[positive_data_acceptance]
    )


def test_the_document_names_each_route_and_its_errors(client: Any) -> None:
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    for path in ("/v1/search", "/v1/samples", "/v1/media/{content_hash}", "/v1/training_sets/{digest}/rows"):
        for route in found["paths"][path].values():
            problems = [route["responses"][code]["content"] for code in ("401", "404", "422", "429", "503")]
            assert all("application/problem+json" in content for content in problems)
    assert set(found["components"]["schemas"]["ProblemBody"]["properties"]) == {
        *("type", "title", "status", "detail", "action")
    }
