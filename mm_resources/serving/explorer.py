"""The explorer: pages for people over the same core as the API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from mm_embed_kernels import sql
from mm_embed_kernels.errors import ProcessFailure, SampleError, UserError
from mm_resources.serving import datasets
from mm_resources.serving.access import COOKIE, Access
from mm_resources.serving.marks import latest_labels, latest_marks
from mm_resources.serving.page_templates import render
from mm_resources.serving.pages import SAMPLE_COLUMNS, PageRequest, duplicate_page, failure_page, sample_page
from mm_resources.serving.problems import Problem, problem_body
from mm_resources.serving.queries import SearchAnswers, SearchBody, check_where
from mm_resources.serving.samples import explain_feature, read_sample
from mm_resources.serving.service import Service
from mm_resources.serving.thresholds import require_rule
from mm_resources.settings import Settings
from mm_resources.tables.failure_events import FailureFilter

STATIC = Path(__file__).parent / "static"
VIEWS = [
    ("Search", "/"),
    ("Samples", "/samples"),
    ("Curate", "/curate"),
    ("Duplicates", "/duplicates"),
    ("Failures", "/failures"),
    ("Map", "/map"),
    ("Versions", "/versions"),
    ("Cost", "/cost"),
    ("API", "/docs"),
]
# Hits and samples of a page, and neighbours of a sample.
_HITS, _ROWS, _NEIGHBOURS, _EXAMPLES = 24, 24, 6, 12
# What is shown first, where nothing is chosen: what can be seen.
_SEEN_FIRST = ("image", "video", "audio")
Scope = dict[str, Any]
Compute = Callable[[Scope], dict[str, Any]]


def scope_of(request: Request) -> Scope:
    """Return the parameters of a view's address, each once."""
    return dict(request.query_params)


def frame(service: Service, scope: Scope, here: str) -> dict[str, Any]:
    """Return what every page shows, and complete the scope by the first version and modality."""
    listed = datasets.list_datasets(service)
    cells = [{**cell} for item in listed["datasets"] for cell in item["cells"]]
    cells.sort(key=lambda cell: cell["published_at"], reverse=True)
    versions = list(dict.fromkeys(cell["dataset_version"] for cell in cells))
    versions += [alias["alias"] for alias in listed["aliases"]]
    scope.setdefault("version", versions[0] if versions else "")
    own = [cell["modality"] for cell in cells if cell["dataset_version"] == scope["version"]]
    modalities = sorted({cell["modality"] for cell in cells})
    if not scope.get("modality"):
        scope["modality"] = next(
            (name for name in _SEEN_FIRST if name in own), (own or modalities or [""])[0]
        )
    return {
        "views": VIEWS,
        "here": here,
        "scope": scope,
        "cells": cells,
        "versions": versions,
        "modalities": modalities,
        "aliases": listed["aliases"],
        "problems": listed["problems"],
        "dagster": Settings.from_environment().dagster_url,
    }


async def show(service: Service, request: Request, template: str, compute: Compute) -> Response:
    """Return a view, computed in the queue of answers; an error becomes a page that says why."""
    scope, here = scope_of(request), request.url.path

    def values() -> dict[str, Any]:
        made = frame(service, scope, here)
        return {**made, **compute(scope)}

    try:
        return render(template, **await service.work.run(values))
    except Problem as problem:
        return _error_page(problem, here)


def _error_page(problem: Problem, here: str) -> Response:
    body = problem_body(problem)
    return render(
        "error.html",
        problem.status,
        views=VIEWS,
        here=here,
        scope={},
        cells=[],
        kind=body["type"],
        title=body["title"],
        detail=body["detail"],
        action=body["action"],
    )


def explorer_router(service: Service, access: Access, openapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes of the pages."""
    router = APIRouter(include_in_schema=False)
    _add_views(router, service)
    _add_search_by_medium(router, service)
    _add_login(router, access)

    @router.get("/docs")
    async def show_docs(request: Request) -> Response:
        return await show(service, request, "docs.html", lambda _: {"paths": openapi()["paths"]})

    return router


def _add_views(router: APIRouter, service: Service) -> None:
    @router.get("/")
    async def show_search(request: Request) -> Response:
        return await show(service, request, "search.html", lambda scope: search_values(service, scope))

    @router.get("/samples")
    async def show_samples(request: Request) -> Response:
        return await show(service, request, "samples.html", lambda scope: _samples(service, scope))

    @router.get("/sample/{sample_id}")
    async def show_sample(request: Request, sample_id: str) -> Response:
        return await show(service, request, "sample.html", lambda scope: _sample(service, sample_id, scope))

    @router.get("/failures")
    async def show_failures(request: Request) -> Response:
        def compute(scope: Scope) -> dict[str, Any]:
            chosen = FailureFilter(fingerprint=scope.get("fingerprint", "")[:80])
            asked = _page_request(service, ("failures", chosen.dumps()), scope)
            return {"page": failure_page(asked, chosen)}

        return await show(service, request, "failures.html", compute)

    @router.get("/duplicates")
    async def show_duplicates(request: Request) -> Response:
        def compute(scope: Scope) -> dict[str, Any]:
            return {"page": duplicate_page(_page_request(service, ("duplicates",), scope, 10))}

        return await show(service, request, "duplicates.html", compute)

    @router.get("/versions")
    async def show_versions(request: Request) -> Response:
        return await show(service, request, "versions.html", lambda scope: _versions(service, scope))

    @router.get("/cost")
    async def show_cost(request: Request) -> Response:
        return await show(
            service,
            request,
            "cost.html",
            lambda scope: {"costs": datasets.read_costs(service, scope["version"])},
        )


def _page_request(service: Service, of: tuple[object, ...], scope: Scope, limit: int = _ROWS) -> PageRequest:
    return PageRequest(service, of, scope["version"], scope["modality"], limit, scope.get("cursor"))


def search_values(service: Service, scope: Scope, medium: bytes | None = None) -> dict[str, Any]:
    """Return what the page of a search shows: hits and facets, or what is published."""
    query = scope.get("q", "").strip()
    found: dict[str, Any] = {"hits": None, "facets": None, "cursor": None, "problem": "", "what": query}
    if not query and medium is None:
        return {**found, "examples": _example_rows(service, scope)}
    try:
        body = SearchBody(
            query=query if medium is None else None,
            embedder=scope.get("embedder") or None,
            dataset_version=scope["version"] or None,
            modality=scope["modality"],
            k=_HITS,
            where=_where(service, scope, ("label", "split")),
            mode=scope.get("mode") or "vector",
            find=scope.get("find") or "neighbours",
            facets=["label", "split", "rule"],
            cursor=scope.get("cursor"),
        )
        page = _search(service, body, medium)
    except (Problem, UserError, SampleError, ValueError) as error:
        if isinstance(error, ProcessFailure):
            raise
        return {**found, "hits": [], "problem": error.detail if isinstance(error, Problem) else _line(error)}
    what = f"the medium {scope.get('file', '')}" if medium is not None else query
    return {**found, "hits": page["hits"], "facets": page["facets"], "cursor": page["cursor"], "what": what}


def _example_rows(service: Service, scope: Scope) -> list[dict[str, Any]]:
    """Return the first samples of the chosen cell that are kept, for the page of a store."""
    try:
        asked = _page_request(service, ("samples", "kept", None), {**scope, "cursor": None}, _EXAMPLES)
        rows: list[dict[str, Any]] = sample_page(asked, SAMPLE_COLUMNS, "kept", None)["rows"]
        return rows
    except (Problem, UserError):  # nothing is published, and the page says so
        return []


def _search(service: Service, body: SearchBody, medium: bytes | None) -> dict[str, Any]:
    """Return a page of hits; where the primary embedder has no vector of the query, by another one that has.

    Words find sounds by the embedder of their transcripts.
    """
    try:
        return SearchAnswers(service, body, medium).page()
    except ProcessFailure:
        raise
    except UserError:
        pins = service.pins(body.dataset_version, body.modality)
        others = [table.embedder for table in pins[0].tables if not table.primary]
        if body.embedder is not None or body.mode != "vector":
            raise
        for name in others:
            try:
                return SearchAnswers(service, body.model_copy(update={"embedder": name}), medium).page()
            except UserError:
                continue
        raise


def _line(error: Exception) -> str:
    # A ValueError of pydantic has many lines, of which the first names the model.
    return str(error) if isinstance(error, UserError | SampleError) else "an argument is out of its range"


def _where(service: Service, scope: Scope, columns: tuple[str, ...]) -> str | None:
    """Return the filter of a view: the text that a person gives, and the facets that are chosen."""
    given = check_where(scope.get("where") or None, service.limits)
    parts = [f"({given})"] if given else []
    parts += [f"{name} = {sql.literal(scope[name])}" for name in columns if scope.get(name)]
    if scope.get("rule"):
        parts.append(f"NOT array_has(passed, {sql.literal(scope['rule'])})")
    if scope.get("kept") in ("kept", "dropped"):
        parts.append("kept" if scope["kept"] == "kept" else "NOT kept")
    return " AND ".join(parts) or None


def _samples(service: Service, scope: Scope) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": [], "total": 0, "facets": None, "cursor": None, "problem": ""}
    found |= {"marks": {}, "given": {}, "allow_marks": service.allow_marks}
    (pin,) = service.published(scope["version"], scope["modality"])
    require_rule(service, pin, scope.get("rule") or "")
    try:
        where = _where(service, scope, ("label", "split"))
        order = scope.get("order_by") or None
        asked = _page_request(service, ("samples", where, order), scope)
        page = sample_page(asked, SAMPLE_COLUMNS, where, order, ("kept", "rule", "label", "split"))
    except UserError as error:
        return {**found, "problem": str(error)}
    except Problem as error:
        if error.status != 422:
            raise
        return {**found, "problem": error.detail}
    marked = {"marks": latest_marks(service, pin), "given": latest_labels(service, pin)}
    return {**found, **page, **marked}


def _sample(service: Service, sample_id: str, scope: Scope) -> dict[str, Any]:
    named = scope.get("version") or None
    sample = read_sample(service, sample_id, named, scope.get("modality") if named else None)
    modality, chain, neighbours = sample["pin"]["modality"], None, []
    if sample["state"] == "kept":
        try:
            chain = explain_feature(service, sample_id, sample["pin"]["dataset_version"])
            near = SearchBody(
                query=f"id:{sample_id}",
                dataset_version=sample["pin"]["dataset_version"],
                modality=modality,
                k=_NEIGHBOURS + 1,
                group_by="sample",
            )
            hits = SearchAnswers(service, near).page()["hits"]
            neighbours = [hit for hit in hits if hit["sample_id"] != sample_id][:_NEIGHBOURS]
        except (Problem, UserError):
            # It was curated and has no vector: its failures say why.
            chain = None
    return {"sample": sample, "modality": modality, "chain": chain, "neighbours": neighbours}


def _versions(service: Service, scope: Scope) -> dict[str, Any]:
    before, after = scope.get("before"), scope.get("after")
    if not before or not after:
        return {"difference": None, "problem": ""}
    try:
        return {"difference": datasets.compare_versions(service, before, after), "problem": ""}
    except Problem as error:
        return {"difference": None, "problem": error.detail}


def _add_search_by_medium(router: APIRouter, service: Service) -> None:
    @router.post("/explore/media")
    async def search_by_medium(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=4, max_part_size=1 << 20) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Problem("bad_request", "the form has no file")
            scope: Scope = {name: value for name, value in form.items() if isinstance(value, str)}
            medium = await file.read()
            scope["file"] = (file.filename or "")[:200]

        def values() -> dict[str, Any]:
            made = frame(service, scope, "/")
            return {**made, **search_values(service, scope, medium)}

        found = await service.work.run(values)
        if found["problem"]:
            raise Problem("bad_request", found["problem"])
        return render("hits.html", **found)


def _add_login(router: APIRouter, access: Access) -> None:
    def page(target: str, problem: str = "", status: int = 200) -> Response:
        return render(
            "login.html", status, views=[], here="/login", scope={}, cells=[], target=target, problem=problem
        )

    @router.get("/login")
    async def show_login(request: Request) -> Response:
        return page(_own_path(request.query_params.get("next", "/")))

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=4, max_part_size=4_096) as form:
            secret, target = form.get("secret", ""), _own_path(str(form.get("next", "/")))
        name = access.holder(secret) if isinstance(secret, str) and access.asks_tokens else None
        if name is None:
            return page(target, "no known token", 401)
        answer = RedirectResponse(target, 303)
        is_secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, access.session(name), httponly=True, samesite="strict", secure=is_secure)
        return answer


def _own_path(target: str) -> str:
    """Return a path of this service; the front page for any other address."""
    is_own = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_own else "/"
