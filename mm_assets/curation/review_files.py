"""Read review files (samples to keep or drop) and record them against the samples of a dataset version."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell

# Columns that may name the sample of a line, the most specific first.
NAMES = ("sample_id", "key", "source_uri")
_LINES = pa.schema(
    [
        ("line", pa.int64()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("source", pa.string()),
        ("mark", pa.string()),
        ("label", pa.string()),
    ]
)
_MATCHES = """
SELECT r.line, r.kind, r.name, r.mark, r.label, s.sample_id, s.content_hash
FROM (
  SELECT sample_id, content_hash, source, unnest([
    {'kind': 'sample_id', 'name': sample_id},
    {'kind': 'key', 'name': key},
    {'kind': 'source_uri', 'name': source_uri}
  ]) AS named FROM samples
) s JOIN reviews r
  ON s.named.kind = r.kind AND s.named.name = r.name AND (r.source IS NULL OR r.source = s.source)
"""
_LABELLED = "SELECT s.key, s.sample_id, l.label FROM samples s JOIN labels l USING (sample_id) ORDER BY 1, 2"
MAX_UNKNOWN_LINES = 10


@dataclass
class RecordedReviews:
    """The result of recording a review file.

    Attributes:
        recorded: reviews recorded.
        unknown: lines that name no sample of the version.
        unknown_lines: the first of them, with the names.
    """

    recorded: int = 0
    unknown: int = 0
    unknown_lines: list[str] = field(default_factory=list)


def record_reviews(catalog: Catalog, cells: list[Cell], path: Path) -> RecordedReviews:
    """Record the reviews of a CSV, TSV or JSONL file, all or none of them.

    Raises:
        UserError: naming file and line, for a mark other than keep and drop, a line that names no or several
            samples, or two lines that contradict each other; or when no line names a sample of the version.
    """
    reviews = pa.Table.from_pylist(
        [_parse_line(path, number, row) for number, row in _rows(path)], schema=_LINES
    )
    rows, by_line, by_sample = [], dict[int, str](), dict[str, dict[str, Any]]()
    for cell in cells:
        for row in _match_samples(catalog, cell, reviews):
            where = f"{path} line {row['line']}"
            if by_line.setdefault(row["line"], row["sample_id"]) != row["sample_id"]:
                several = f"{row['kind']} {row['name']!r} names several samples of {cell.dataset_version}"
                raise UserError(f"{where}: {several}; add a column source, or name them by sample_id")
            other = by_sample.setdefault(row["sample_id"], row)
            if (other["mark"], other["label"]) != (row["mark"], row["label"]):
                raise UserError(
                    f"{where} marks {row['name']!r} {_said(row)}, "
                    f"but line {other['line']} marks it {_said(other)}"
                )
            if other is row:
                rows.append(
                    {
                        **{name: row[name] for name in ("sample_id", "content_hash", "mark", "label")},
                        "dataset": cell.dataset,
                        "modality": cell.modality,
                        "version": cell.version,
                        "origin": path.name,
                    }
                )
    unknown = [
        f"line {row['line']}: {row['kind']} {row['name']}"
        for row in reviews.to_pylist()
        if row["line"] not in by_line
    ]
    if not rows:
        first = f"; {unknown[0]} is none" if unknown else ""
        raise UserError(f"{path} names no sample of {cells[0].dataset_version}{first}")
    return RecordedReviews(catalog.reviews.record(rows), len(unknown), unknown[:MAX_UNKNOWN_LINES])


def _said(row: dict[str, Any]) -> str:
    return str(row["mark"] if row["label"] is None else f"{row['mark']} {row['label']!r}")


def _match_samples(catalog: Catalog, cell: Cell, reviews: pa.Table) -> list[dict[str, Any]]:
    """Return the reviewed samples of a cell, by line.

    Raises:
        NotMaterialized: when nothing of the cell was read yet.
    """
    columns = ["sample_id", "content_hash", "source", "key", "source_uri"]
    samples = catalog.tables.read("raw_assets", cell, columns)
    matches: list[dict[str, Any]] = (
        sql.fetch(_MATCHES, samples=samples, reviews=reviews).sort_by("line").to_pylist()
    )
    return matches


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the fields of each line.

    Raises:
        UserError: for a file that cannot be read, or has another suffix.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise UserError(f"{path} is not a review file: its name must end in .csv, .tsv or .jsonl")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if kind in (".csv", ".tsv"):
                reader = csv.DictReader(stream, delimiter="," if kind == ".csv" else "\t")
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _parse_json(path, number, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _parse_json(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} line {number} is not a JSON object")
    return record


def _parse_line(path: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return a line as a row of `_LINES`."""
    label = str(row["label"]).strip() if row.get("label") not in (None, "") else None
    mark = str(row.get("mark") or "").strip().lower() or ("label" if label else "")
    if mark not in ("keep", "drop") and not (mark == "label" and label):
        raise UserError(
            f"{path} line {number}: mark is {row.get('mark')!r}, but must be keep or drop; "
            "a line without mark needs a label"
        )
    kind = next((name for name in NAMES if row.get(name)), None)
    if kind is None:
        raise UserError(f"{path} line {number} names no sample: it needs one of {', '.join(NAMES)}")
    source = str(row["source"]) if row.get("source") else None
    return {
        "line": number,
        "kind": kind,
        "name": str(row[kind]),
        "source": source,
        "mark": mark,
        "label": label,
    }


def write_labels(catalog: Catalog, cells: list[Cell], path: Path) -> int:
    """Write the labels that people gave to samples of cells as CSV, which a source's `table` reads.

    Returns:
        The number of labels.

    Raises:
        UserError: for a file that cannot be written.
    """
    found = [
        {**row, "modality": cell.modality}
        for cell in cells
        for row in sql.fetch(
            _LABELLED,
            samples=catalog.tables.read("raw_assets", cell, ["sample_id", "key"]),
            labels=catalog.reviews.labels(cell),
        ).to_pylist()
    ]
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["key", "sample_id", "modality", "label"])
            writer.writeheader()
            writer.writerows(found)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(found)
