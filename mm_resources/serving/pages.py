"""Pages of the rows behind a pin: samples with their decisions, failures, groups of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import FAILURES
from mm_embed_kernels.error_classes import lookup
from mm_embed_kernels.errors import without_classes
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.filters import filter_errors, row_errors
from mm_resources.serving.cursors import cursor_at, parse_cursor, request_digest
from mm_resources.serving.facets import sample_facets
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import check_where, describe_pin
from mm_resources.serving.service import Service
from mm_resources.storage.row_pages import read_page
from mm_resources.tables.failure_events import FailureFilter, may_be_redriven

SAMPLE_COLUMNS = (
    *(
        "sample_id",
        "key",
        "source",
        "source_uri",
        "entity_id",
        "label",
        "content_hash",
        "mime",
        "kept",
        "rule",
    ),
    *("reason", "quality_score", "duplicate_group", "split_group", "split"),
)
DECISION_COLUMNS = (*SAMPLE_COLUMNS, "rules", "duplicates")
FAILURE_COLUMNS = tuple(name for name in FAILURES.bare.names if name not in ("dataset", "version"))
SAMPLE_FACETS = ("kept", "rule", "label", "split")
_GROUPS = """
SELECT duplicate_group, count(*) AS samples FROM curated WHERE duplicate_group IS NOT NULL
GROUP BY 1 HAVING samples > 1 ORDER BY samples DESC, 1
"""
_MEMBERS = "SELECT * FROM curated SEMI JOIN groups USING (duplicate_group) ORDER BY kept DESC, sample_id"
# Members of a group on a page.
_MOST_MEMBERS = 24


class PageRequest:
    """A page that a client asks for, read from the pin that its first page was read from."""

    def __init__(
        self,
        service: Service,
        of: tuple[object, ...],
        dataset_version: str,
        modality: str,
        limit: int,
        cursor: str | None,
    ) -> None:
        if not 1 <= limit <= service.limits.page_rows:
            raise Problem("bad_request", f"limit is {limit}; give 1 to {service.limits.page_rows}")
        self.service, self.limit = service, limit
        self._digest = request_digest(*of, dataset_version, modality)
        self._cursor = parse_cursor(cursor, self._digest) if cursor else None
        self._dataset_version, self._modality = dataset_version, modality
        self.offset = self._cursor.offset if self._cursor else 0

    def resolve(self) -> list[Pin]:
        """Return the pin, as a list of one."""
        if self._cursor:
            return self._cursor.resolve(self.service.catalog)
        return self.service.published(self._dataset_version, self._modality)

    def answer(self, pin: Pin, rows: Sequence[Any], total: int, **more: Any) -> dict[str, Any]:
        """Return a page as its fields."""
        end = self.offset + self.limit
        cursor = cursor_at(end, [pin], self._digest) if end < total else None
        return {"rows": list(rows), "total": total, "cursor": cursor, "pin": describe_pin(pin), **more}


def sample_page(
    request: PageRequest,
    columns: Sequence[str],
    where: str | None,
    order_by: str | None,
    facets: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a page of a cell's curated samples, kept and dropped.

    Args:
        where: SQL over their columns.
        order_by: a column, with ``-`` in front for the largest first.
    """
    service = request.service
    check_where(where, service.limits)
    chosen = f"({where})" if where else None

    def read(pins: list[Pin]) -> dict[str, Any]:
        (pin,) = pins
        dataset = service.catalog.tables.dataset("curated_samples", pin.cell, pin.place("curated_samples"))
        names = [name for name in columns if name in dataset.schema.names]
        names += [name for name in dataset.schema.names if name.startswith("user__")]
        _check_order(order_by, dataset.schema.names)
        with filter_errors(where), row_errors(where):
            total = service.remember(
                ("rows", pin.cell, int(dataset.version), chosen),
                lambda: int(dataset.count_rows(filter=chosen)),
            )
            rows = read_page(dataset, names, chosen, order_by, request.limit, request.offset)
        counts = sample_facets(service, pin, where, facets)
        return request.answer(pin, rows.to_pylist(), total, facets=counts or None)

    return service.read(request.resolve, read)


def _check_order(order_by: str | None, columns: Sequence[str]) -> None:
    if order_by is not None and order_by.removeprefix("-") not in columns:
        raise Problem(
            "bad_request", f"order_by names no column {order_by!r}; there are: {', '.join(columns)}"
        )


def failure_page(request: PageRequest, chosen: FailureFilter) -> dict[str, Any]:
    """Return a page of a cell's failures, and all their causes with what a person does about each."""
    service = request.service

    def read(pins: list[Pin]) -> dict[str, Any]:
        (pin,) = pins
        failures, versions = service.catalog.failures, failure_versions(service, pin)
        events = failures.read(pin.cell, list(FAILURE_COLUMNS), chosen=chosen, versions=versions)
        causes: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        total = 0
        for batch in events:
            for event in batch.select(["stage", "error_class", "fingerprint"]).to_pylist():
                cause = causes.setdefault(event["fingerprint"], {**event, "events": 0})
                cause["events"] += 1
            begin = max(0, request.offset - total)
            if begin < batch.num_rows and len(rows) < request.limit:
                rows += map(with_sentence, batch.slice(begin, request.limit - len(rows)).to_pylist())
            total += batch.num_rows
        described = [_describe_cause(cause, pin) for cause in causes.values()]
        return request.answer(
            pin, rows, total, causes=sorted(described, key=lambda cause: (-cause["events"], cause["stage"]))
        )

    return service.read(request.resolve, read)


def with_sentence(event: dict[str, Any]) -> dict[str, Any]:
    """Return a failure whose message has no class names; older stores have them in front."""
    return {**event, "message": without_classes(event["message"])}


def failure_versions(service: Service, pin: Pin) -> dict[str, int]:
    """Return the versions of the tables of failures that belong to a pin."""
    metas = {stage: service.catalog.tables.meta(stage, pin.cell, pin.place(stage)) for stage in pin.stages}
    return {stage: meta.failures for stage, meta in metas.items() if meta is not None and meta.failures}


def _describe_cause(cause: dict[str, Any], pin: Pin) -> dict[str, Any]:
    entry = lookup(cause["error_class"])
    retry = ""
    if may_be_redriven(cause["stage"], cause["error_class"]):
        retry = f"mm redrive {pin.dataset_version} --class {cause['error_class']} --modality {pin.modality}"
    return {
        **cause,
        "meaning": entry.meaning if entry else "",
        "action": entry.action if entry else "",
        "retry": retry,
    }


def duplicate_page(request: PageRequest) -> dict[str, Any]:
    """Return a page of a cell's groups of duplicates, the largest first, with their members."""
    service = request.service

    def read(pins: list[Pin]) -> dict[str, Any]:
        (pin,) = pins
        at = pin.place("curated_samples")

        def read_curated(columns: list[str] | None, where: str | None = None) -> Any:
            return service.catalog.tables.read("curated_samples", pin.cell, columns, where, at)

        page = sql.fetch(
            f"SELECT *, count(*) OVER () AS total FROM ({_GROUPS}) "
            f"ORDER BY samples DESC, 1 LIMIT {request.limit} OFFSET {request.offset}",
            curated=read_curated(["duplicate_group"]),
        )
        groups = {row["duplicate_group"]: {**row, "members": []} for row in page.to_pylist()}
        total = next((int(row.pop("total")) for row in groups.values()), 0)
        if groups:
            members = sql.fetch(
                _MEMBERS,
                curated=read_curated([*SAMPLE_COLUMNS, "duplicates"]),
                groups=page.select(["duplicate_group"]),
            )
            for row in members.to_pylist():
                shown = groups[row["duplicate_group"]]["members"]
                shown += [row] if len(shown) < _MOST_MEMBERS else []
        for row in groups.values():
            row.pop("total", None)
        return request.answer(pin, list(groups.values()), total)

    return service.read(request.resolve, read)
