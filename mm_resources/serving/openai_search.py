"""Searches in the shape of OpenAI-compatible clients: a vector store is a published version."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mm_embed_kernels import sql
from mm_resources.registry.pins import Pin
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import SearchAnswers, SearchBody
from mm_resources.serving.service import Service

_SIGNS = {"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_DEPTH, _MOST_FILTERS = 8, 64
_ATTRIBUTES = (
    *("feature_id", "sample_id", "segment_id", "entity_id", "content_hash", "source_uri", "modality"),
    *("label", "split", "span", "dataset_version"),
)


class RankingOptions(BaseModel):
    """Options of the ranking; the ranker is always this store's."""

    ranker: str | None = None
    score_threshold: float | None = None


class VectorStoreSearch(BaseModel):
    """A search of a vector store."""

    model_config = ConfigDict(extra="forbid")

    query: str | Annotated[list[str], Field(min_length=1)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: Literal[False] | None = Field(default=None, description="queries are searched as they are")


class VectorStorePage(BaseModel):
    """Results of a vector store's search."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[dict[str, Any]]
    has_more: bool = False
    next_page: None = None


def search_vector_store(service: Service, name: str, body: VectorStoreSearch) -> dict[str, Any]:
    """Search a published version.

    Args:
        name: ``dataset@version``, or ``dataset@version:modality``; by default texts, where there are some.
    """
    dataset_version, _, modality = name.partition(":")
    pin = _pin(service, dataset_version, modality)
    where = None
    if body.filters is not None:
        columns = service.catalog.features.dataset(pin.primary.table, pin.primary.lance_version).schema.names
        where = _condition(body.filters, columns, 0)
    queries = [body.query] if isinstance(body.query, str) else body.query
    asked = SearchBody(
        queries=[*queries],
        dataset_version=dataset_version,
        modality=pin.modality,
        k=body.max_num_results,
        where=where,
    )
    found = SearchAnswers(service, asked).page()["results"]
    least = (body.ranking_options.score_threshold if body.ranking_options else None) or -1.0
    best: dict[str, dict[str, Any]] = {}
    for hit in (hit for hits in found for hit in hits if hit["score"] >= least):
        known = best.setdefault(hit["feature_id"], hit)
        if hit["score"] > known["score"]:
            best[hit["feature_id"]] = hit
    hits = sorted(best.values(), key=lambda hit: (-hit["score"], hit["feature_id"]))[: body.max_num_results]
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_result(hit) for hit in hits],
        "has_more": False,
        "next_page": None,
    }


def _pin(service: Service, dataset_version: str, modality: str) -> Pin:
    pins = service.published(dataset_version, modality or None)
    return next((pin for pin in pins if pin.modality == "text"), pins[0])


def _result(hit: dict[str, Any]) -> dict[str, Any]:
    return {
        "file_id": hit["sample_id"],
        "filename": hit["key"],
        "score": hit["score"],
        "attributes": {name: hit[name] for name in _ATTRIBUTES if hit[name] is not None},
        "content": [{"type": "text", "text": hit["text"] or ""}],
    }


def _condition(given: Any, columns: list[str], depth: int) -> str:
    """Return a filter of the client's shape as SQL over the columns of one table.

    Raises:
        Problem: for another shape, or a column that there is not.
    """
    kind = given.get("type") if isinstance(given, dict) else None
    if kind in ("and", "or") and isinstance(given.get("filters"), list):
        parts = given["filters"]
        if depth >= _DEPTH or not 0 < len(parts) <= _MOST_FILTERS:
            raise Problem("bad_request", f"filters: at most {_DEPTH} levels of 1 to {_MOST_FILTERS} are read")
        return "(" + f" {kind.upper()} ".join(_condition(part, columns, depth + 1) for part in parts) + ")"
    key, value = (given.get("key"), given.get("value")) if isinstance(given, dict) else (None, None)
    if key not in columns or key == "vector":
        raise Problem("bad_request", f"filters: no column {str(key)[:80]!r}; there are: {', '.join(columns)}")
    values = value if isinstance(value, list) else [value]
    if kind in ("in", "nin") and isinstance(value, list) and 0 < len(values) <= _MOST_FILTERS:
        return f"`{key}` {'NOT ' if kind == 'nin' else ''}IN ({', '.join(_literal(item) for item in values)})"
    if kind in _SIGNS and not isinstance(value, list):
        return f"`{key}` {_SIGNS[kind]} {_literal(value)}"
    raise Problem("bad_request", f"filters: type {str(kind)[:80]!r} is not known; there are: "
                  f"{', '.join([*_SIGNS, 'in', 'nin', 'and', 'or'])}")  # fmt: skip


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return sql.literal(value)
    raise Problem("bad_request", f"filters: {str(value)[:80]!r} is no text, number, true or false")
