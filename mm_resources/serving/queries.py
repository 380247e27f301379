"""Searches that clients send: their bodies, bounds, pages and facets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from mm_resources.registry.pins import Pin
from mm_resources.retrieval.filters import check_filter
from mm_resources.retrieval.query_vectors import Query, Words
from mm_resources.retrieval.search import SearchRequest
from mm_resources.serving.cursors import cursor_at, parse_cursor, request_digest
from mm_resources.serving.facets import feature_facets
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.problems import Problem
from mm_resources.serving.service import Service

Text = Annotated[str, Field(min_length=1, max_length=200)]
QueryBody = str | list[float]


class SearchBody(BaseModel):
    """A search, see `FeatureStore.search`; of `query` and `queries`, or a file, one is given."""

    model_config = ConfigDict(extra="forbid")

    query: QueryBody | None = Field(default=None, description="a text, `id:` and an id, or a vector")
    queries: list[QueryBody] | None = Field(
        default=None, description="several queries, answered each for itself"
    )
    dataset_version: Text | list[Text] | None = Field(
        default=None, description="a version or alias, several, or all"
    )
    modality: Text | list[Text] = Field(description="a modality, or several that share a space")
    embedder: Text | None = Field(default=None, description="embedder whose tables are searched")
    k: int = Field(default=10, ge=1, le=ServiceLimits.k, description="hits of a page")
    where: str | None = Field(default=None, description="SQL over the feature columns")
    mode: Literal["vector", "text", "hybrid"] = "vector"
    group_by: Literal["sample", "entity"] | None = None
    find: Literal["neighbours", "duplicates", "hard_negatives"] = "neighbours"
    label: Text | None = Field(default=None, description="label of the query, for hard negatives")
    verify: bool = Field(default=False, description="compare the tables' files with their hashes before")
    facets: list[Literal["label", "split", "rule"]] = Field(
        default=[], description="counts over the filter's rows"
    )
    cursor: str | None = Field(default=None, description="`cursor` of the page before")


def search_schema() -> dict[str, Any]:
    """Return the JSON Schema of a search in JSON, in which one of `query` and `queries` is given."""
    made = SearchBody.model_json_schema()
    for name in ("query", "queries"):
        without_null = [item for item in made["properties"][name].pop("anyOf") if item.get("type") != "null"]
        made["properties"][name] |= {"anyOf": without_null}
        made["properties"][name].pop("default")
    made["oneOf"] = [{"required": ["query"]}, {"required": ["queries"]}]
    return made


class SearchPage(BaseModel):
    """Hits, best first."""

    hits: list[dict[str, Any]] | None = Field(default=None, description="of one query")
    results: list[list[dict[str, Any]]] | None = Field(
        default=None, description="of several queries, in their order"
    )
    pins: list[dict[str, Any]] = Field(description="the pins that were read")
    facets: dict[str, dict[str, int]] | None = None
    cursor: str | None = Field(default=None, description="for the next page; null after the last one")


def check_bounds(body: SearchBody, limits: ServiceLimits) -> None:
    """Check the parts of a search that cost most.

    Raises:
        Problem: naming the part and its bound.
    """
    check_where(body.where, limits)
    if body.k > limits.k:
        raise Problem("bad_request", f"k is {body.k:,}; at most {limits.k:,} hits are returned")
    given = body.queries if body.queries is not None else [body.query]
    if len(given) > limits.queries:
        raise Problem("bad_request", f"{len(given):,} queries; at most {limits.queries} are answered at once")
    for query in given:
        most = limits.query_chars if isinstance(query, str) else limits.vector_values
        if query is not None and len(query) > most:
            unit = "characters" if isinstance(query, str) else "numbers"
            raise Problem("bad_request", f"the query has {len(query):,} {unit}; it may have {most:,}")


def check_where(where: str | None, limits: ServiceLimits) -> str | None:
    """Return a client's filter where it is short, and one complete expression.

    Raises:
        Problem, UserError: where it is not.
    """
    if where is not None and len(where) > limits.filter_chars:
        raise Problem(
            "bad_request", f"the filter has {len(where):,} characters; it may have {limits.filter_chars:,}"
        )
    return None if where is None else check_filter(where)


class SearchAnswers:
    """The answer to one search, in the shapes of JSON and Arrow."""

    def __init__(self, service: Service, body: SearchBody, medium: bytes | None = None) -> None:
        self.service, self.body = service, body
        check_bounds(body, service.limits)
        self.queries = _queries_of(body, medium)
        self.pins: list[Pin] = []
        fields = body.model_dump(exclude={"cursor", "facets", "k"})
        self._digest = request_digest(fields, medium is not None)
        self._cursor = parse_cursor(body.cursor, self._digest) if body.cursor is not None else None
        if self._cursor and len(self.queries) != 1:
            raise Problem("bad_request", "a cursor continues one query; send the others by themselves")
        self.offset = self._cursor.offset if self._cursor else 0
        if self.offset + body.k > service.limits.k:
            raise Problem(
                "bad_request", f"at most {service.limits.k:,} hits are returned, all pages together"
            )

    def tables(self) -> list[pa.Table]:
        """Return the hits of each query, one more than the page has where there are more."""
        service, body, cursor = self.service, self.body, self._cursor

        def resolve() -> list[Pin]:
            return (
                cursor.resolve(service.catalog)
                if cursor
                else service.pins(body.dataset_version, body.modality)
            )

        def answer(pins: list[Pin]) -> list[pa.Table]:
            self.pins = pins
            if body.verify:
                for pinned in [pin.table(body.embedder) for pin in pins]:
                    service.catalog.features.require_intact(pinned.table, pinned.lance_version)
            return [
                service.features.search_pins(pins, self._request(each), body.embedder)
                for each in self.queries
            ]

        return [table.slice(self.offset) for table in service.read(resolve, answer)]

    def _request(self, query: Query) -> SearchRequest:
        body = self.body
        wanted = self.offset + body.k + (1 if len(self.queries) == 1 else 0)
        return SearchRequest(query, wanted, body.where, body.mode, body.group_by, body.find, body.label)

    def page(self) -> dict[str, Any]:
        """Return the answer as the fields of `SearchPage`."""
        tables, body = self.tables(), self.body
        found: dict[str, Any] = {"hits": None, "results": None, "facets": None, "cursor": None}
        if body.queries is not None:
            found["results"] = [table.slice(0, body.k).to_pylist() for table in tables]
        else:
            found["hits"] = tables[0].slice(0, body.k).to_pylist()
            end = self.offset + body.k
            if tables[0].num_rows > body.k and end < self.service.limits.k:
                found["cursor"] = cursor_at(end, self.pins, self._digest)
        if body.facets:
            found["facets"] = feature_facets(self.service, self.pins, body.embedder, body.where, body.facets)
        return {**found, "pins": [describe_pin(pin) for pin in self.pins]}

    def table(self) -> pa.Table:
        """Return the answer as one table; of several queries, with a column ``query``: its place."""
        tables = [table.slice(0, self.body.k) for table in self.tables()]
        if self.body.queries is None:
            return tables[0]
        return pa.concat_tables(
            [
                table.add_column(0, "query", pa.array([i] * table.num_rows, pa.int32()))
                for i, table in enumerate(tables)
            ]
        )


def _queries_of(body: SearchBody, medium: bytes | None) -> Sequence[Query]:
    given = [body.query is not None, body.queries is not None, medium is not None]
    if sum(given) != 1:
        raise Problem("bad_request", "give one of `query`, `queries` and a file")
    if medium is not None:
        return [medium]
    queries = [body.query] if body.queries is None else body.queries
    if not queries:
        raise Problem("bad_request", "`queries` is an empty list; give at least one")
    # Never the path of a file of this machine.
    return [Words(query) if isinstance(query, str) else query for query in queries if query is not None]


def describe_pin(pin: Pin) -> dict[str, Any]:
    """Return what names a pin to clients."""
    return {
        "dataset_version": pin.dataset_version,
        "modality": pin.modality,
        "pin": pin.number,
        "published_at": pin.published_at,
        "data_version": pin.data_version,
    }
