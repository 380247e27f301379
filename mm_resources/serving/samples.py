"""One sample: its row, its decisions and segments, in the first pin that has it."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.registry.pins import Pin
from mm_resources.serving.pages import FAILURE_COLUMNS, failure_versions, with_sentence
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import describe_pin
from mm_resources.serving.service import Service
from mm_resources.tables.failure_events import FailureFilter
from mm_resources.tables.stage_tables import NotMaterialized

IDENTIFIER = r"^[0-9a-f]{8,64}$"
_MOST_SEGMENTS = 200


def read_sample(
    service: Service, sample_id: str, dataset_version: str | None = None, modality: str | None = None
) -> dict[str, Any]:
    """Return what a store knows of a sample, published, dropped or failed.

    Args:
        dataset_version, modality: where to look; by default in all published cells.

    Raises:
        Problem: where no published cell has listed it.
    """
    require_identifier(sample_id)

    def resolve() -> list[Pin]:
        if dataset_version is not None:
            return service.published(dataset_version, modality)
        problems: list[str] = []
        pins = service.catalog.registry.latest_pins(
            modalities=[modality] if modality else None, problems=problems
        )
        # The newest first, so that a version that follows another shows its own decisions.
        return sorted(pins, key=lambda pin: pin.published_at, reverse=True)

    def read(pins: list[Pin]) -> dict[str, Any] | None:
        return next((found for pin in pins if (found := _read(service, pin, sample_id))), None)

    found = service.read(resolve, read)
    if found is None:
        raise Problem("not_found", f"no published version has listed a sample {sample_id}")
    return found


def require_identifier(identifier: str) -> str:
    """Return an id that a client sends, where it can be one.

    Raises:
        Problem: where it cannot.
    """
    if not re.fullmatch(IDENTIFIER, identifier):
        raise Problem("not_found", f"{identifier[:80]!r} is no id; ids have hexadecimal digits")
    return identifier


def _read(service: Service, pin: Pin, sample_id: str) -> dict[str, Any] | None:
    where = f"sample_id = {sql.literal(sample_id)}"
    listed = _rows(service, pin, "dataset_registry", where, limit=1)
    if not listed:
        return None
    curated = _rows(service, pin, "curated_samples", where, limit=1)
    raw = _rows(service, pin, "raw_assets", where, limit=1)
    metadata = _rows(service, pin, "sample_metadata", where, limit=1)
    segments = _rows(service, pin, "segments", where, limit=_MOST_SEGMENTS)
    failures = service.catalog.failures.read(
        pin.cell,
        list(FAILURE_COLUMNS),
        chosen=FailureFilter(sample_id=sample_id),
        versions=failure_versions(service, pin),
    ).read_all()
    decision = curated[0] if curated else {}
    content = decision.get("content_hash") or (raw[0].get("content_hash") if raw else None)
    return {
        "sample_id": sample_id,
        "pin": describe_pin(pin),
        "state": _state(decision, failures.num_rows),
        "content_hash": content,
        "listed": listed[0],
        "metadata": {
            name: value for name, value in (metadata[0] if metadata else {}).items() if value is not None
        },
        "decision": decision or None,
        "segments": segments,
        "failures": [with_sentence(event) for event in failures.to_pylist()],
        "mark": _latest(service.catalog.reviews.latest(pin.cell), "mark", sample_id),
        "given_label": _latest(service.catalog.reviews.labels(pin.cell), "label", sample_id),
    }


def _state(decision: dict[str, Any], failures: int) -> str:
    if decision and not decision["kept"]:
        return "dropped"
    if decision:
        return "kept"
    return "failed" if failures else "undecided"


def _rows(service: Service, pin: Pin, asset: str, where: str, limit: int) -> list[dict[str, Any]]:
    try:
        rows = service.catalog.tables.read(asset, pin.cell, where=where, at=pin.place(asset), limit=limit)
    except (NotMaterialized, KeyError):
        return []
    found: list[dict[str, Any]] = rows.read_all().to_pylist()
    return found


def _latest(latest: pa.Table, column: str, sample_id: str) -> str | None:
    """Return what a person said last of a sample."""
    return dict(zip(latest["sample_id"].to_pylist(), latest[column].to_pylist(), strict=True)).get(sample_id)


def explain_feature(service: Service, identifier: str, dataset_version: str | None) -> dict[str, Any]:
    """Return the lineage of a feature, segment or sample, see `FeatureStore.explain`.

    Raises:
        Problem: ``not_found`` where no published table has the id.
    """
    require_identifier(identifier.removeprefix("id:"))
    try:
        return service.features.explain(identifier, dataset_version)
    except UserError as error:
        raise Problem("not_found", str(error)) from error
