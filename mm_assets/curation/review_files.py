"""Files of marks: read, and held against the samples of a dataset version."""

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
from mm_resources.monitoring.reviews import Reviews

# What a line may name its sample by, the surest first.
NAMES = ("sample_id", "key", "source_uri")
_LINES = pa.schema(
    [
        ("line", pa.int64()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("source", pa.string()),
        ("mark", pa.string()),
    ]
)
_FOUND = """
SELECT m.line, m.kind, m.name, m.mark, s.sample_id, s.content_hash
FROM (
  SELECT sample_id, content_hash, source, unnest([
    {'kind': 'sample_id', 'name': sample_id}, {'kind': 'key', 'name': key}, {'kind': 'source_uri', 'name': source_uri}
  ]) AS known FROM samples
) s JOIN marks m ON s.known.kind = m.kind AND s.known.name = m.name AND (m.source IS NULL OR m.source = s.source)
"""
SHOWN_UNKNOWN = 10


@dataclass
class Labelled:
    """What became of a file of marks: marks recorded, and the lines (with their names) that name no sample of the version."""

    recorded: int = 0
    unknown: int = 0
    unknown_lines: list[str] = field(default_factory=list)


def label(catalog: Catalog, cells: list[Cell], path: Path) -> Labelled:
    """Record the marks of a CSV, TSV or JSONL file, all or none of them.

    Raises:
        UserError: naming file and line, for a mark that is neither keep nor drop, a line that names no or
            several samples, or two that contradict each other; or when no line names a sample of the version.
    """
    marks = pa.Table.from_pylist([_line(path, number, row) for number, row in _rows(path)], schema=_LINES)
    rows, by_line, by_sample = [], dict[int, str](), dict[str, dict[str, Any]]()
    for cell in cells:
        columns = ["sample_id", "content_hash", "source", "key", "source_uri"]
        try:
            samples = catalog.tables.read("raw_assets", cell, columns)
        except LookupError as error:
            raise UserError(f"{error}; run `mm backfill {cell.dataset_version}`") from None
        for row in sql.fetch(_FOUND, samples=samples, marks=marks).sort_by("line").to_pylist():
            where = f"{path} line {row['line']}"
            if by_line.setdefault(row["line"], row["sample_id"]) != row["sample_id"]:
                raise UserError(
                    f"{where}: {row['kind']} {row['name']!r} names several samples of {cell.dataset_version}; add a column source, or name "
                    "them by sample_id"
                )
            other = by_sample.setdefault(row["sample_id"], row)
            if other["mark"] != row["mark"]:
                raise UserError(
                    f"{where} marks {row['name']!r} {row['mark']}, but line {other['line']} marks it {other['mark']}"
                )
            if other is row:
                known = {name: row[name] for name in ("sample_id", "content_hash", "mark")}
                rows.append(
                    {
                        **known,
                        "dataset": cell.dataset,
                        "modality": cell.modality,
                        "version": cell.version,
                        "origin": path.name,
                    }
                )
    unknown = [
        f"line {row['line']}: {row['kind']} {row['name']}"
        for row in marks.to_pylist()
        if row["line"] not in by_line
    ]
    if not rows:
        raise UserError(
            f"{path} names no sample of {cells[0].dataset_version}{f'; {unknown[0]} is none' if unknown else ''}"
        )
    return Labelled(Reviews(catalog).record(rows), len(unknown), unknown[:SHOWN_UNKNOWN])


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and what the lines say.

    Raises:
        UserError: for a file that cannot be read, or is of another kind.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise UserError(f"{path} is no file of marks: its name ends in .csv, .tsv or .jsonl")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if kind in (".csv", ".tsv"):
                reader = csv.DictReader(stream, delimiter="," if kind == ".csv" else "\t")
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _record(path, number, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} line {number} is no JSON object")
    return found


def _line(path: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    mark = str(row.get("mark") or "").strip().lower()
    if mark not in ("keep", "drop"):
        raise UserError(f"{path} line {number}: mark is {row.get('mark')!r}, and has to be keep or drop")
    kind = next((name for name in NAMES if row.get(name)), None)
    if kind is None:
        raise UserError(f"{path} line {number} names no sample: it needs one of {', '.join(NAMES)}")
    source = str(row["source"]) if row.get("source") else None
    return {"line": number, "kind": kind, "name": str(row[kind]), "source": source, "mark": mark}
