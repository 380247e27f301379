"""Routes of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from mm_embed_kernels.sandbox.tables import to_bytes
from mm_resources.serving import datasets
from mm_resources.serving.json_values import json_response
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.marks import MarksBody, RecordedMarks, record_marks
from mm_resources.serving.media import CONTENT_HASH, Form, Previews, media_response
from mm_resources.serving.openai_search import VectorStorePage, VectorStoreSearch, search_vector_store
from mm_resources.serving.pages import (
    DECISION_COLUMNS,
    SAMPLE_COLUMNS,
    PageRequest,
    duplicate_page,
    failure_page,
    sample_page,
)
from mm_resources.serving.problems import PROBLEM_TYPE, Problem
from mm_resources.serving.queries import SearchAnswers, SearchBody, SearchPage, search_schema
from mm_resources.serving.samples import explain_feature, read_sample
from mm_resources.serving.service import Service
from mm_resources.serving.training_sets import (
    ARROW_TYPE,
    PinnedSet,
    TrainingSetBody,
    TrainingSets,
)
from mm_resources.tables.failure_events import FailureFilter

Version = Annotated[str, Query(min_length=3, max_length=200, description="DATASET@VERSION or DATASET@ALIAS")]
Modality = Annotated[str, Query(min_length=1, max_length=200)]
Limit = Annotated[int, Query(ge=1, le=ServiceLimits.page_rows, description="rows of the page")]
CursorText = Annotated[str | None, Query(max_length=8_000, description="`cursor` of the page before")]
Where = Annotated[str | None, Query(description="SQL over the columns: one expression")]
Name = Annotated[str, Path(min_length=3, max_length=200)]
Typed = Annotated[bool, Query(description="times and bytes as objects that name their type")]


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="a class of the registry of error classes")
    title: str = Field(description="what the class means")
    status: int
    detail: str = Field(description="one line: what, which, why, what to do")
    action: str = Field(description="what a person does about the class")


_CONTENT = {"content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request cannot be read", **_CONTENT},
    401: {"description": "no known token", **_CONTENT},
    403: {"description": "another site, or not allowed here", **_CONTENT},
    404: {"description": "what is named is not there", **_CONTENT},
    405: {"description": "the path has another method", **_CONTENT},
    408: {"description": "the request arrives too slowly", **_CONTENT},
    410: {"description": "the content was forgotten", **_CONTENT},
    413: {"description": "the body is too large", **_CONTENT},
    415: {"description": "the body, or the content for a preview, is of a type that is not read", **_CONTENT},
    416: {"description": "the range lies outside of the content", **_CONTENT},
    422: {"description": "an argument is unknown or out of range", **_CONTENT},
    429: {"description": "too many requests at once", **_CONTENT},
    500: {"description": "a mistake of the program, or damaged files", **_CONTENT},
    503: {"description": "the store or a model does not answer, or not in time", **_CONTENT},
}
_ARROW_TOO: dict[int | str, dict[str, Any]] = {
    200: {"content": {ARROW_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
_SEARCH_BODY = search_schema()
_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "the medium that is the query"},
        "request": {"type": "string", "description": "JSON of a search without query"},
    },
    "required": ["file", "request"],
}


class Page(BaseModel):
    """Rows of a page, in the order of the table or of `order_by`."""

    rows: list[dict[str, Any]]
    total: int
    cursor: str | None = Field(description="for the next page; null after the last one")
    pin: dict[str, Any]
    facets: dict[str, dict[str, int]] | None = None
    causes: list[dict[str, Any]] | None = None


def api_router(service: Service) -> APIRouter:
    """Return the routes below ``/v1``."""
    router = APIRouter(prefix="/v1", responses=PROBLEMS)
    _add_reading(router, service)
    _add_search(router, service)
    _add_pages(router, service)
    _add_training_sets(router, service)
    return router


def _add_reading(router: APIRouter, service: Service) -> None:
    previews = Previews(service)

    @router.get("/datasets", tags=["datasets"])
    async def list_datasets() -> dict[str, Any]:
        """List the registered versions with what they have published."""
        return await service.work.run(datasets.list_datasets, service)

    @router.get("/datasets/{dataset_version}", tags=["datasets"])
    async def describe_dataset(dataset_version: Name) -> dict[str, Any]:
        """Describe a version: cells with accounting, embedders, spaces, columns with types."""
        return await service.work.run(datasets.describe_dataset, service, dataset_version)

    @router.get("/costs/{dataset_version}", tags=["datasets"])
    async def read_costs(dataset_version: Name) -> dict[str, Any]:
        """Return cost and savings of a version's cells, from the ledger."""
        return await service.work.run(datasets.read_costs, service, dataset_version)

    @router.get("/diff/{before}/{after}", tags=["datasets"])
    async def compare_versions(before: Name, after: Name) -> dict[str, Any]:
        """Compare two published versions: samples, decisions, splits, labels, vectors."""
        return await service.work.run(datasets.compare_versions, service, before, after)

    @router.get("/samples/{sample_id}", tags=["samples"])
    async def show_sample(
        sample_id: Annotated[str, Path(max_length=64)],
        dataset_version: Annotated[str | None, Query(max_length=200)] = None,
        modality: Annotated[str | None, Query(max_length=200)] = None,
    ) -> Response:
        """Return a sample: what was listed and measured, its decisions, segments and failures."""
        return json_response(
            await service.work.run(read_sample, service, sample_id, dataset_version, modality)
        )

    @router.get("/features/{identifier}/explain", tags=["samples"])
    async def explain(
        identifier: Annotated[str, Path(max_length=67)],
        dataset_version: Annotated[str | None, Query(max_length=200)] = None,
        typed: Typed = False,
    ) -> Response:
        """Return the chain from a source to a feature, by the id of a feature, segment or sample."""
        found = await service.work.run(explain_feature, service, identifier, dataset_version)
        return json_response(found, with_types=typed)

    @router.get("/media/{content_hash}", tags=["samples"], response_class=Response)
    async def show_medium(
        content_hash: Annotated[str, Path(pattern=CONTENT_HASH)],
        preview: Annotated[int | None, Query(ge=16, le=1024, description="longest side of a preview")] = None,
        span: Annotated[
            str | None,
            Query(
                max_length=60,
                pattern=r"^seconds=\d{1,6}(\.\d{1,6})?-\d{1,6}(\.\d{1,6})?$",
                description="a part, `seconds=5.5-7.5`, as WebM up to 20 s; with `preview` a frame of it",
            ),
        ] = None,
        range_: Annotated[str | None, Header(alias="range", max_length=200)] = None,
        if_none_match: Annotated[str | None, Header(max_length=200)] = None,
    ) -> Response:
        """Return the bytes of a content, ranged; or a picture, waveform, clip or the beginning of a text."""
        if preview is not None or span is not None:
            form = Form.of(preview, span)
            return await service.work.run(previews.response, content_hash, form, if_none_match, range_)
        return await service.work.run(media_response, service, content_hash, range_, if_none_match)


def _add_search(router: APIRouter, service: Service) -> None:
    extra = {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _SEARCH_BODY},
                "multipart/form-data": {"schema": _FORM},
            },
        }
    }

    @router.post(
        "/search", tags=["search"], response_model=SearchPage, responses=_ARROW_TOO, openapi_extra=extra
    )
    async def search(request: Request) -> Response:
        """Search published features by a text, a medium, an id, a vector, or several of them.

        The answer is JSON, or an Arrow stream where `Accept` asks for it.
        """
        body, medium = await _read_search(request)
        answers = await service.work.run(SearchAnswers, service, body, medium)
        if ARROW_TYPE in request.headers.get("accept", ""):
            table = await service.work.run(answers.table)
            return Response(to_bytes(table), media_type=ARROW_TYPE)
        return json_response(await service.work.run(answers.page))

    @router.post("/vector_stores/{vector_store_id}/search", tags=["search"], response_model=VectorStorePage)
    async def search_store(vector_store_id: Name, body: VectorStoreSearch) -> Response:
        """Search a version in the shape of OpenAI-compatible clients."""
        return json_response(await service.work.run(search_vector_store, service, vector_store_id, body))


async def _read_search(request: Request) -> tuple[SearchBody, bytes | None]:
    """Return the search of a request's body, and its medium if there is one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    medium: bytes | None = None
    if kind == "application/json":
        raw: str | bytes = await request.body()
    elif kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=4, max_part_size=1 << 20) as form:
            file, raw_field = form.get("file"), form.get("request", "{}")
            if not isinstance(file, UploadFile) or not isinstance(raw_field, str):
                raise Problem("bad_request", "the form needs a `file`, and `request`: JSON of the search")
            medium, raw = await file.read(), raw_field
    else:
        raise Problem("bad_request", f"the content type {kind[:80]!r} is not read; send JSON or a form", 415)
    try:
        return SearchBody.model_validate(json.loads(raw)), medium
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise Problem("bad_request", "; ".join(faults[:3])) from None
    except (ValueError, RecursionError):
        raise Problem("bad_request", "the body is no JSON; send an object", 400) from None


def _add_pages(router: APIRouter, service: Service) -> None:
    @router.get("/samples", tags=["samples"], response_model=Page)
    async def list_samples(
        dataset_version: Version,
        modality: Modality,
        where: Where = None,
        order_by: Annotated[
            str | None, Query(max_length=200, description="a column; -COLUMN: largest first")
        ] = None,
        facets: Annotated[list[Literal["kept", "rule", "label", "split"]], Query()] = [],  # noqa: B006 - a default
        limit: Limit = 50,
        cursor: CursorText = None,
    ) -> Response:
        """List the samples of a cell, kept and dropped, as it was curated."""
        asked = PageRequest(service, ("samples", where, order_by), dataset_version, modality, limit, cursor)
        return json_response(
            await service.work.run(sample_page, asked, SAMPLE_COLUMNS, where, order_by, facets)
        )

    @router.get("/decisions", tags=["samples"], response_model=Page, responses=_ARROW_TOO)
    async def list_decisions(
        request: Request,
        dataset_version: Version,
        modality: Modality,
        where: Where = None,
        order_by: Annotated[str | None, Query(max_length=200)] = None,
        limit: Limit = 50,
        cursor: CursorText = None,
    ) -> Response:
        """List the samples of a cell with every rule's decision; all where `Accept` asks for Arrow."""
        if ARROW_TYPE in request.headers.get("accept", ""):
            table = await service.work.run(datasets.all_decisions, service, dataset_version, modality)
            return Response(to_bytes(table), media_type=ARROW_TYPE)
        asked = PageRequest(service, ("decisions", where, order_by), dataset_version, modality, limit, cursor)
        return json_response(await service.work.run(sample_page, asked, DECISION_COLUMNS, where, order_by))

    @router.get("/failures", tags=["samples"], response_model=Page)
    async def list_failures(  # noqa: PLR0913 - one parameter for each field of the query
        dataset_version: Version,
        modality: Modality,
        stage: Annotated[str, Query(max_length=80)] = "",
        error_class: Annotated[str, Query(max_length=80)] = "",
        fingerprint: Annotated[str, Query(max_length=80)] = "",
        sample_id: Annotated[str, Query(max_length=80)] = "",
        limit: Limit = 50,
        cursor: CursorText = None,
    ) -> Response:
        """List the failures of a cell, and their causes with what a person does about each."""
        chosen = FailureFilter(stage, error_class, fingerprint, sample_id)
        asked = PageRequest(service, ("failures", chosen.dumps()), dataset_version, modality, limit, cursor)
        return json_response(await service.work.run(failure_page, asked, chosen))

    @router.get("/duplicates", tags=["samples"], response_model=Page)
    async def list_duplicates(
        dataset_version: Version, modality: Modality, limit: Limit = 20, cursor: CursorText = None
    ) -> Response:
        """List the groups of duplicates of a cell, the largest first."""
        asked = PageRequest(service, ("duplicates",), dataset_version, modality, limit, cursor)
        return json_response(await service.work.run(duplicate_page, asked))

    @router.post("/marks", tags=["samples"], response_model=RecordedMarks)
    async def mark_samples(request: Request, body: MarksBody) -> Response:
        """Record marks, keep or drop; only with `--allow-marks`."""
        return json_response(await service.work.run(record_marks, service, body, request.state.who))


def _add_training_sets(router: APIRouter, service: Service) -> None:
    sets = TrainingSets(service)

    @router.post("/training_sets", tags=["training"], response_model=PinnedSet)
    async def pin_training_set(body: TrainingSetBody) -> Response:
        """Pin a training set: the same rows for ever, named by their digest."""
        return json_response(await service.work.run(sets.pin, body))

    @router.get(
        "/training_sets/{digest}/rows", tags=["training"], response_class=Response, responses=_ARROW_TOO
    )
    async def stream_rows(digest: Annotated[str, Path(min_length=8, max_length=128)]) -> Response:
        """Stream the rows of a training set that was pinned, with their vectors, as Arrow."""

        def begin() -> Iterator[bytes]:
            return sets.stream(sets.open(digest))

        chunks = await service.work.run(begin)
        return StreamingResponse(iterate_in_threadpool(chunks), media_type=ARROW_TYPE)
