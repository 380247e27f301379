"""Audit: recompute published rows from their blobs, without any cache, and compare them with the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.compute.runner import run_inline
from mm_resources.features.removed_rows import removal_errors, stage_version, versions_of
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.query_vectors import QueryEncoder
from mm_resources.retrieval.training_rows import blob_locations

_COLUMNS = ["feature_id", "sample_id", "content_hash", "span", "text", "vector"]
_BATCH = 32


@dataclass(frozen=True)
class WrongRow:
    """A published row that differs from what its blob gives.

    Attributes:
        feature_id: id of the row.
        sample_id: id of its sample.
        cause: ``vector`` or ``text`` where it differs, else the error class of the recomputation
            (``blob_missing``, ...).
        distance: cosine distance between the published and the recomputed vector; None where there is none.
    """

    feature_id: str
    sample_id: str
    cause: str
    distance: float | None = None


@dataclass
class Audit:
    """The result of auditing one published table.

    Attributes:
        dataset_version, modality: the cell.
        embedder: embedder of the table.
        table: name of the table.
        pin: number of the pin.
        rows: rows of the table.
        checked: rows that were recomputed.
        tolerance: cosine distance that the embedder allows between two computations.
        same_fingerprint: whether the installed embedder, libraries included, is the one that made the table;
            if not, differences beyond the tolerance are expected.
        worst: the largest distance.
        wrong: the rows that differ.
    """

    dataset_version: str
    modality: str
    embedder: str
    table: str
    pin: int
    rows: int
    checked: int
    tolerance: float
    same_fingerprint: bool
    worst: float = 0.0
    wrong: list[WrongRow] = field(default_factory=list)

    def __str__(self) -> str:
        checked = f"{self.checked:,} of {self.rows:,} rows recomputed"
        distance = f"largest distance {self.worst:.2g} ({self.tolerance:g} allowed)"
        return f"{self.table}: {checked}, {distance}; {len(self.wrong):,} wrong"


def audit(
    catalog: Catalog,
    dataset_version: str,
    modality: str,
    sample: int = 50,
    seed: int | None = None,
    encoder: QueryEncoder | None = None,
) -> Iterator[Audit]:
    """Recompute a random sample of the rows of each table of a published version, and yield an audit of each.

    Texts are cut out of their blobs again; transcripts are taken from the table.

    Args:
        dataset_version: version or alias.
        modality: modality of the cell.
        sample: rows of each table.
        seed: seed of the sample; None draws other rows each time.
        encoder: source of the embedders; share one between audits so that each model is loaded once.

    Raises:
        UserError: when nothing is published, or a table's weights are not installed.
        RemovedRows: when rows of a table are forgotten meanwhile.
    """
    pin, encoder = catalog.registry.published_pin(dataset_version, modality), encoder or QueryEncoder()
    for pinned in pin.tables:
        yield _audit_table(
            catalog, pin, pinned, encoder.embedder(pinned), sample, np.random.default_rng(seed)
        )


def _audit_table(
    catalog: Catalog,
    pin: Pin,
    pinned: PinnedTable,
    embedder: Embedder,
    sample: int,
    random: np.random.Generator,
) -> Audit:
    result = Audit(
        dataset_version=pin.dataset_version,
        modality=pin.modality,
        embedder=pinned.embedder,
        table=pinned.table,
        pin=pin.number,
        rows=pinned.rows,
        checked=min(sample, pinned.rows),
        tolerance=embedder.tolerance,
        same_fingerprint=embedder.fingerprint == pinned.fingerprint,
    )
    chosen = (
        np.sort(random.choice(pinned.rows, result.checked, replace=False))
        if pinned.rows
        else np.empty(0, np.int64)
    )
    with removal_errors(catalog.receipts, versions_of(pin)):
        dataset = catalog.features.dataset(pinned.table, pinned.lance_version)
        for start in range(0, len(chosen), _BATCH):
            rows = dataset.take(chosen[start : start + _BATCH].tolist(), columns=_COLUMNS)
            _compare(result, rows, *_recompute(catalog, pin, embedder, rows))
    return result


def _recompute(
    catalog: Catalog, pin: Pin, embedder: Embedder, rows: pa.Table
) -> tuple[list[str | None], list[dict[str, Any]]]:
    """Compute rows from their blobs.

    Returns:
        The texts (None where the blob gives none), and results of the embedding kernel with the vectors.
    """
    blobs = catalog.blobs
    locations = blob_locations(
        catalog,
        rows["content_hash"],
        *stage_version(pin, "content_blobs"),
    ).to_pylist()
    texts, spans, cut = rows["text"].to_pylist(), rows["span"].to_pylist(), []
    if embedder.input_shape is None and embedder.modality == pin.modality:
        kernel = SegmentKernel(get(pin.modality), blobs, Limits())
        cut = _run(kernel, _requests(locations, [""] * len(locations), [None] * len(locations)))
        texts = [_text_at(result, span) for result, span in zip(cut, spans, strict=True)]
    results = _run(
        EmbedKernel(embedder, blobs, Limits()), _requests(locations, spans, [text or "" for text in texts])
    )
    # A row that could not be cut has no vector, for the same cause.
    return texts, [
        piece if piece["status"] != "ok" else result
        for piece, result in zip(cut or results, results, strict=True)
    ]


def _text_at(result: dict[str, Any], span: str) -> str | None:
    return next((item["text"] for item in result["segments"] or [] if item["span"] == span), None)


def _requests(locations: list[dict[str, Any]], spans: list[str], texts: list[Any]) -> pa.Table:
    rows = zip(locations, spans, texts, strict=True)
    requests = [
        {"key": str(number), **location, "span": span, "text": text}
        for number, (location, span, text) in enumerate(rows)
    ]
    names = ("key", "content_hash", "span", "path", "text")
    schema = pa.schema(
        [*((name, pa.string()) for name in names), ("offset", pa.int64()), ("size", pa.int64())]
    )
    return pa.Table.from_pylist(requests, schema=schema)


def _run(kernel: Any, requests: pa.Table) -> list[dict[str, Any]]:
    """Run a kernel without its cache; return the results in the order of the requests."""
    size = kernel.stages()[0].resources.batch_rows
    blocks = (requests.slice(start, size) for start in range(0, requests.num_rows, size))
    results = [row for table in run_inline(kernel, blocks) for row in table.to_pylist()]
    return sorted(results, key=lambda row: int(row["key"]))


def _compare(summary: Audit, rows: pa.Table, texts: list[str | None], results: list[dict[str, Any]]) -> None:
    """Add the differences between published and recomputed rows to an audit."""
    for row, text, result in zip(rows.to_pylist(), texts, results, strict=True):
        if result["status"] != "ok":
            summary.wrong.append(WrongRow(row["feature_id"], row["sample_id"], result["error_class"]))
            continue
        published, now = np.asarray(row["vector"], np.float64), np.asarray(result["vector"], np.float64)
        distance = float(1 - published @ now / (np.linalg.norm(published) * np.linalg.norm(now)))
        summary.worst = max(summary.worst, distance)
        # Not `distance > tolerance`: a vector with NaN has to be wrong.
        near = distance <= summary.tolerance
        if not near or row["text"] != text:
            cause = "text" if near else "vector"
            summary.wrong.append(WrongRow(row["feature_id"], row["sample_id"], cause, distance))
