"""The application of a service: its routes, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mm_resources.serving.access import Access
from mm_resources.serving.agent_tools import agent_app, agent_server
from mm_resources.serving.api import PROBLEMS, ProblemBody, api_router
from mm_resources.serving.curation_views import curation_router
from mm_resources.serving.explorer import STATIC, explorer_router
from mm_resources.serving.guard import Guard
from mm_resources.serving.json_values import json_response
from mm_resources.serving.media import warm_sandbox
from mm_resources.serving.problems import Problem, answer_with_problems
from mm_resources.serving.service import Service

_TITLE = "mm serve"
_ABOUT = "Published features of a store: search, samples with their decisions, training sets."


def create_app(service: Service, access: Access, warm: bool = False, with_agents: bool = False) -> ASGIApp:
    """Return the application over a service, for any ASGI server; it closes the service when it ends.

    Args:
        warm: whether to load the models when it starts; by default when a query needs them.
        with_agents: whether agents find tools at ``/mcp``.
    """
    agents = agent_server(service) if with_agents else None
    agent_routes = agent_app(agents).routes if agents else []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if warm:
            service.warm(warm_sandbox)
        async with agents.session_manager.run() if agents else nullcontext():
            yield
        service.close()

    app = FastAPI(
        title=_TITLE,
        description=_ABOUT,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    answer_with_problems(app)
    _add_health(app, service)
    app.include_router(api_router(service))
    app.include_router(explorer_router(service, access, lambda: app.openapi()))
    app.include_router(curation_router(service))
    app.router.routes += agent_routes
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _describe_problems(app)
    return Guard(app, access, service.limits, service.metrics)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"])
    async def show_health() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], responses={503: PROBLEMS[503]})
    async def show_readiness() -> dict[str, str]:
        """Tell that requests can be answered: the store is there."""
        if reason := await service.work.run(service.find_obstacle):
            raise Problem("store_error", reason)
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], response_class=Response, responses=PROBLEMS)
    async def show_metrics() -> Response:
        """Return figures for Prometheus."""
        text = await service.work.run(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/v1", tags=["health"], responses=PROBLEMS)
    async def show_service() -> Response:
        """Return what this service allows."""
        return json_response({"marks": service.allow_marks, "limits": service.limits})


def _describe_problems(app: FastAPI) -> None:
    """Add the shape of problems to the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemBody"] = ProblemBody.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
