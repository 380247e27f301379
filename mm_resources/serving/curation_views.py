"""Views for curators: funnel, rules with their thresholds, marks and what they say of the rules."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mm_embed_kernels import sql
from mm_resources.registry.pins import Pin
from mm_resources.serving.explorer import Scope, show
from mm_resources.serving.facets import sample_facets
from mm_resources.serving.json_values import json_response
from mm_resources.serving.marks import latest_labels, latest_marks, mark_scores
from mm_resources.serving.pages import SAMPLE_COLUMNS, PageRequest, sample_page
from mm_resources.serving.problems import Problem
from mm_resources.serving.projections import METHODS, project
from mm_resources.serving.service import Service
from mm_resources.serving.thresholds import (
    histogram_of,
    measured_values,
    require_rule,
    thresholds_of,
    what_if,
)

_ROWS = 48
_STEPS = ("discovered", "ingested", "valid", "kept", "published")


def curation_router(service: Service) -> APIRouter:
    """Return the routes of the views for curators."""
    router = APIRouter(include_in_schema=False)

    @router.get("/curate")
    async def show_curation(request: Request) -> Response:
        return await show(service, request, "curate.html", lambda scope: _values(service, scope))

    @router.get("/explore/what_if")
    async def show_what_if(version: str, modality: str, rule: str, parameter: str, value: float) -> Response:
        if not math.isfinite(value):
            raise Problem("bad_request", "the value is no number")

        def compute() -> dict[str, Any]:
            return what_if(service, service.published(version, modality)[0], rule, parameter, value)

        return json_response(await service.work.run(compute))

    @router.get("/map")
    async def show_map(request: Request) -> Response:
        def compute(scope: Scope) -> dict[str, Any]:
            return {"methods": METHODS, "method": scope.get("method") or METHODS[0]}

        return await show(service, request, "map.html", compute)

    @router.get("/explore/map")
    async def show_points(version: str, modality: str, method: str = METHODS[0]) -> Response:
        def compute() -> dict[str, Any]:
            return service.read(
                lambda: service.published(version, modality), lambda pins: project(service, pins[0], method)
            )

        return json_response(await service.work.run(compute))

    return router


def _values(service: Service, scope: Scope) -> dict[str, Any]:
    (pin,) = service.published(scope["version"], scope["modality"])
    rule = require_rule(service, pin, scope.get("rule") or "")
    where = f"NOT array_has(passed, {sql.literal(rule)})" if rule else "NOT kept"
    asked = PageRequest(
        service, ("curate", rule), scope["version"], scope["modality"], _ROWS, scope.get("cursor")
    )
    most = max(1, pin.accounting.get("discovered", 0))
    return {
        "funnel": [
            {
                "name": name,
                "count": pin.accounting.get(name, 0),
                "share": 100 * pin.accounting.get(name, 0) / most,
            }
            for name in _STEPS
        ],
        "rules": sample_facets(service, pin, None, ("rule",))["rule"],
        "rule": rule,
        "thresholds": _thresholds(service, pin, rule),
        "page": sample_page(asked, SAMPLE_COLUMNS, where, None),
        "marks": latest_marks(service, pin),
        "given": latest_labels(service, pin),
        "scores": mark_scores(service, pin),
        "allow_marks": service.allow_marks,
    }


def _thresholds(service: Service, pin: Pin, rule: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for threshold in thresholds_of(service, pin):
        if rule and threshold.rule != rule:
            continue
        if not rule:
            found.append({"threshold": threshold, "histogram": None})
            continue
        measured = measured_values(service, pin, threshold.rule)
        histogram = histogram_of(threshold, measured) if measured else None
        if histogram:
            failing = threshold.failing(measured.values) if measured else 0
            found.append({"threshold": threshold, "histogram": histogram, "failing": failing})
    return found
