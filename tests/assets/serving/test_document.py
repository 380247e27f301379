"""Property tests from the service's OpenAPI document: what it answers is what it says that it answers."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.assets.serving.conftest import TOKEN

# Not shrunk: each try is a request.
PHASES = (Phase.explicit, Phase.generate)


@pytest.mark.slow
def test_answers_are_those_of_the_document(address: str) -> None:
    """Twenty-five requests of each route, made from its schema; all findings are told at the end."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    document = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=headers)
    findings: list[str] = []
    routes = [found.ok() for found in document.get_all_operations()]
    for route in routes:

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
        )
        @given(case=route.as_strategy())
        def check(case: Any) -> None:
            # A text can fit the schema and be no filter of the table's columns, or no version of the store.
            case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever the library raises is a finding
            findings.append(f"{route.label}: {error}")
    assert len(routes) > 15
    assert findings == []


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
