"""Marks that people set in the service, by sample: keep, drop, labels, in the log that `mm label` reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mm_embed_kernels import sql
from mm_resources.monitoring.review_scores import score_reviews
from mm_resources.registry.pins import Pin
from mm_resources.serving.problems import Problem
from mm_resources.serving.service import Service

_MOST = 500


class MarkBody(BaseModel):
    """A mark of one sample: keep, drop, a label, or one of the first two with a label."""

    model_config = ConfigDict(extra="forbid")

    sample_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    mark: Literal["keep", "drop"] | None = None
    label: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = Field(
        default=None, description="any text; empty: take the label away"
    )

    @model_validator(mode="after")
    def _require_something(self) -> MarkBody:
        if self.mark is None and self.label is None:
            raise ValueError("give `mark`, `label` or both")
        return self


class MarksBody(BaseModel):
    """Marks of samples of one cell; the latest mark of a sample counts, and all stay in the log."""

    model_config = ConfigDict(extra="forbid")

    dataset_version: Annotated[str, Field(min_length=1, max_length=200)]
    modality: Annotated[str, Field(min_length=1, max_length=200)]
    marks: Annotated[list[MarkBody], Field(min_length=1, max_length=_MOST)]


class RecordedMarks(BaseModel):
    """Number of marks recorded, and under which name."""

    recorded: int
    by: str


def record_marks(service: Service, body: MarksBody, who: str) -> dict[str, Any]:
    """Append marks to the log of reviews, all or none of them.

    Args:
        who: name behind the token; a client cannot choose it.

    Raises:
        Problem: where marks are not allowed, or a sample is not of the cell.
    """
    if not service.allow_marks:
        raise Problem("forbidden", "this service records no marks; start it with --allow-marks")
    wanted = {item.sample_id: item for item in body.marks}

    def match(pins: list[Pin]) -> list[dict[str, Any]]:
        (pin,) = pins
        where = f"sample_id IN ({', '.join(map(sql.literal, wanted))})"
        listed = service.catalog.tables.read(
            "raw_assets", pin.cell, ["sample_id", "content_hash"], where, pin.place("raw_assets")
        ).read_all()
        return [
            {
                **row,
                "mark": wanted[row["sample_id"]].mark or "label",
                "label": wanted[row["sample_id"]].label,
                "dataset": pin.dataset,
                "modality": pin.modality,
                "version": pin.version,
                "origin": f"mm serve: {who or 'this machine'}",
            }
            for row in listed.to_pylist()
        ]

    rows = service.read(lambda: service.published(body.dataset_version, body.modality), match)
    unknown = sorted(set(wanted) - {row["sample_id"] for row in rows})
    if unknown:
        raise Problem("bad_request", f"{body.dataset_version} {body.modality} has no sample {unknown[0]}")
    return {"recorded": service.catalog.reviews.record(rows), "by": who or "this machine"}


def latest_marks(service: Service, pin: Pin) -> dict[str, str]:
    """Return the latest mark of each marked sample of a cell's dataset and modality."""
    latest = service.catalog.reviews.latest(pin.cell)
    return dict(zip(latest["sample_id"].to_pylist(), latest["mark"].to_pylist(), strict=True))


def latest_labels(service: Service, pin: Pin) -> dict[str, str]:
    """Return the latest label that a person gave each sample of a cell's dataset and modality."""
    latest = service.catalog.reviews.labels(pin.cell)
    return dict(zip(latest["sample_id"].to_pylist(), latest["label"].to_pylist(), strict=True))


def mark_scores(service: Service, pin: Pin) -> list[dict[str, Any]]:
    """Return precision and recall of each rule and cause by the marks so far."""
    return [vars(score) for score in score_reviews(service.catalog, pin.cell)]
