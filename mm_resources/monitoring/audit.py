"""Audit: published rows computed again from their blobs, past every cache, and held against what readers get."""

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
from mm_resources.cell import Cell
from mm_resources.compute.runner import run_inline
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.query_vectors import QueryEncoder
from mm_resources.retrieval.training_rows import places_of

_COLUMNS = ["feature_id", "sample_id", "content_hash", "span", "text", "vector"]
_BATCH = 32


@dataclass(frozen=True)
class Wrong:
    """A published row that is not what its blob gives.

    Attributes:
        cause: ``vector`` or ``text`` where it differs, else why it cannot be computed again (``blob_missing``, ...).
        distance: cosine distance of the published vector to the one computed now; None where there is none.
    """

    feature_id: str
    sample_id: str
    cause: str
    distance: float | None = None


@dataclass
class Audit:
    """What the audit of one published table found.

    Attributes:
        rows, checked: of the table, and those computed again.
        tolerance: cosine distance that the embedder allows between two computations.
        worst: the largest distance seen.
        same_fingerprint: whether what is installed is what made the table, libraries included; else more may differ than wrong rows.
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
    wrong: list[Wrong] = field(default_factory=list)

    def __str__(self) -> str:
        told = f"{self.checked:,} of {self.rows:,} rows computed again, the worst is {self.worst:.2g} away ({self.tolerance:g} allowed)"
        return f"{self.table}: {told}; {len(self.wrong):,} are wrong"


def audit(
    catalog: Catalog, dataset_version: str, modality: str, sample: int = 50, seed: int | None = None
) -> Iterator[Audit]:
    """Compute a random sample of a published version's rows again, of each of its tables.

    Texts are cut out of their blobs again; transcripts are taken as they were written down.

    Args:
        sample: rows of each table.
        seed: draws the same rows each time; None: others each time.

    Raises:
        UserError: when nothing is published, or a table's weights are not installed.
    """
    pin, encoder = catalog.registry.published(dataset_version, modality), QueryEncoder()
    for pinned in pin.tables:
        yield _audited(catalog, encoder.embedder(pinned), pin, pinned, sample, np.random.default_rng(seed))


def _audited(
    catalog: Catalog,
    embedder: Embedder,
    pin: Pin,
    pinned: PinnedTable,
    sample: int,
    dice: np.random.Generator,
) -> Audit:
    found = Audit(
        f"{pin.dataset}@{pin.version}", pin.modality, pinned.embedder, pinned.table, pin.number, pinned.rows,
        min(sample, pinned.rows), embedder.tolerance, embedder.fingerprint == pinned.fingerprint,
    )  # fmt: skip
    chosen = (
        np.sort(dice.choice(pinned.rows, found.checked, replace=False))
        if pinned.rows
        else np.empty(0, np.int64)
    )
    dataset = catalog.features.dataset(pinned.table, pinned.lance_version)
    for start in range(0, len(chosen), _BATCH):
        rows = dataset.take(chosen[start : start + _BATCH].tolist(), columns=_COLUMNS)
        _compare(found, rows, *_again(catalog, pin, embedder, rows))
    return found


def _again(
    catalog: Catalog, pin: Pin, embedder: Embedder, rows: pa.Table
) -> tuple[list[str | None], list[dict[str, Any]]]:
    """The texts of rows as their blobs give them (None where they give none), and their vectors as results of the kernel."""
    blobs, cell = catalog.blobs, Cell(pin.dataset, pin.version, pin.modality)
    stage = catalog.tables.uri("content_blobs", cell)
    places = places_of(
        rows["content_hash"], stage, int(pin.stages["content_blobs"]["lance_version"])
    ).to_pylist()
    texts, spans, cut = rows["text"].to_pylist(), rows["span"].to_pylist(), []
    if embedder.input_shape is None and embedder.modality == pin.modality:
        kernel = SegmentKernel(get(pin.modality), blobs, Limits())
        cut = _run(kernel, _requests(places, [""] * len(places), [None] * len(places)))
        texts = [_text_at(result, span) for result, span in zip(cut, spans, strict=True)]
    results = _run(
        EmbedKernel(embedder, blobs, Limits()), _requests(places, spans, [text or "" for text in texts])
    )
    # What could not be cut has no vector for that same cause.
    return texts, [
        piece if piece["status"] != "ok" else result
        for piece, result in zip(cut or results, results, strict=True)
    ]


def _text_at(result: dict[str, Any], span: str) -> str | None:
    return next((item["text"] for item in result["segments"] or [] if item["span"] == span), None)


def _requests(places: list[dict[str, Any]], spans: list[str], texts: list[Any]) -> pa.Table:
    rows = zip(places, spans, texts, strict=True)
    asked = [
        {"key": str(number), **place, "span": span, "text": text}
        for number, (place, span, text) in enumerate(rows)
    ]
    names = ("key", "content_hash", "span", "path", "text")
    schema = pa.schema(
        [*((name, pa.string()) for name in names), ("offset", pa.int64()), ("size", pa.int64())]
    )
    return pa.Table.from_pylist(asked, schema=schema)


def _run(kernel: Any, requests: pa.Table) -> list[dict[str, Any]]:
    """Results of a kernel past the cache, in the order of the requests."""
    size = kernel.stages()[0].resources.batch_rows
    blocks = (requests.slice(start, size) for start in range(0, requests.num_rows, size))
    results = [row for table in run_inline(kernel, blocks) for row in table.to_pylist()]
    return sorted(results, key=lambda row: int(row["key"]))


def _compare(found: Audit, rows: pa.Table, texts: list[str | None], results: list[dict[str, Any]]) -> None:
    for row, text, result in zip(rows.to_pylist(), texts, results, strict=True):
        if result["status"] != "ok":
            found.wrong.append(Wrong(row["feature_id"], row["sample_id"], result["error_class"]))
            continue
        published, now = np.asarray(row["vector"], np.float64), np.asarray(result["vector"], np.float64)
        distance = float(1 - published @ now / (np.linalg.norm(published) * np.linalg.norm(now)))
        found.worst = max(found.worst, distance)
        # Not the other way round: a vector that is no number is far from everything.
        near = distance <= found.tolerance
        if not near or row["text"] != text:
            found.wrong.append(
                Wrong(row["feature_id"], row["sample_id"], "text" if near else "vector", distance)
            )
