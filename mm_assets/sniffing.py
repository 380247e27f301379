"""`mm init`: look at a folder and draft the spec that a person would write."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import modality_of, sniff
from mm_embed_kernels.modalities.base import HEAD_BYTES
from mm_embed_kernels.spec import parse_spec
from mm_resources.sources.records import open_records

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SKIPPED = {".yaml", ".yml", ".py", ".md5", ".sha256"}
_MOST_FILES, _MOST_ROWS = 20_000, 500
_TEXT = ("text", "content", "sentence", "caption", "body", "document", "message", "review", "description", "utterance", "question")
_LABEL = ("label", "category", "class", "target", "tag", "topic", "sentiment", "species")
_ID = ("id", "uid", "uuid", "key", "guid")


@dataclass(frozen=True)
class Draft:
    """A spec as YAML, and what it was drawn from."""

    yaml: str
    dataset_version: str
    found: dict[str, int]


@dataclass(frozen=True)
class _Side:
    """A table that describes media files: its key column and the values that stand there."""

    uri: str
    key: str
    columns: list[str]
    values: set[str]


def draft_spec(folder: Path, name: str, version: str, base: Path) -> Draft:
    """Draft a spec for a folder.

    Args:
        folder: what to look at.
        name: dataset name, or "" for the folder's.
        version: dataset version.
        base: folder of the spec file: URIs are written relative to it where they lie below it.

    Raises:
        UserError: when the folder does not exist or holds nothing that a modality reads.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    media, tables = _look(folder)
    root = _relative(folder, base)
    sources, schema = [], {}
    names = {key for files in media.values() for key in files}
    side: list[_Side] = []
    for table in tables:
        rows = _rows(folder / table)
        if matched := _matches(rows, names):
            columns = [column for column in rows[0] if column != matched]
            side.append(_Side(_join(root, table), matched, columns, {str(row.get(matched)) for row in rows}))
            schema.update({column: _kind(row.get(column) for row in rows) for column in columns if column not in ("label", "transcript")})
        elif text := _text_column(rows):
            source, extra = _record_source(table, root, rows, text)
            sources.append(source)
            schema.update(extra)
    named = {modality: files for modality, files in media.items() if any(os.path.splitext(name)[1] for name in files)}
    if media and not named:
        sources.append({"name": "files", "modality": "auto", "uri": _join(root, "**/*")})
    for modality, files in sorted(named.items()):
        sources.append(_file_source(modality, files, root, side))
    if not sources:
        raise UserError(f"{folder} holds no media and no table with a text column")
    spec = {"name": name or _name(folder), "version": version, **({"schema": schema} if schema else {}), "sources": sources}
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    parsed = parse_spec(text, "draft")
    found = {f"{modality} files": len(files) for modality, files in sorted(media.items())}
    return Draft(text, parsed.dataset_version, {**found, "tables": len(tables)})


def _look(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Media files by modality (decided by content) and tables, as keys below the folder."""
    media: dict[str, list[str]] = defaultdict(list)
    tables = []
    for path in islice(_files(folder), _MOST_FILES):
        key, ending = os.path.relpath(path, folder), os.path.splitext(path)[1].lower()
        if ending in TABLE_ENDINGS:
            tables.append(key)
        elif ending not in _SKIPPED and (modality := _modality(path)):
            media[modality].append(key)
    # A lone read-me is no modality of its own beside thousands of pictures.
    total = sum(map(len, media.values()))
    kept = {modality: files for modality, files in media.items() if len(files) > 2 or len(files) * 20 > total}
    return kept, tables


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        yield from (os.path.join(parent, item) for item in sorted(files) if not item.startswith("."))


def _modality(path: str) -> str | None:
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return None
    return modality_of(sniff(head)) if head else None


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [record.fields for record in islice(open_records(str(path)), _MOST_ROWS) if not record.error]
    except UserError:
        return []


def _matches(rows: list[dict[str, Any]], names: set[str]) -> str | None:
    """The column that names media files, by key or file name, in at least half of the rows."""
    known = names | {name.rsplit("/", 1)[-1] for name in names}
    for column in rows[0] if rows else ():
        if sum(str(row.get(column)) in known for row in rows) * 2 >= len(rows):
            return column
    return None


def _text_column(rows: list[dict[str, Any]]) -> str | None:
    """The column that most likely holds the text: by name, else the longest strings."""
    if not rows:
        return None
    strings = [name for name in rows[0] if sum(isinstance(row.get(name), str) for row in rows) * 2 > len(rows)]
    named = [name for wanted in _TEXT for name in strings if name.lower() == wanted]
    if named:
        return named[0]
    lengths = {name: sum(len(str(row.get(name) or "")) for row in rows) / len(rows) for name in strings}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return longest if longest and lengths[longest] >= 15 else None


def _record_source(table: str, root: str, rows: list[dict[str, Any]], text: str) -> tuple[dict[str, Any], dict[str, str]]:
    record = {"text": text}
    for role, wanted in (("id", _ID), ("label", _LABEL)):
        column = next((name for name in rows[0] if name.lower() in wanted and name != text), None)
        values = [row.get(column) for row in rows] if column else []
        if column and (role == "label" or len(set(map(str, values))) == len(values)):
            record[role] = column
    used = set(record.values())
    schema = {
        name: _kind(row.get(name) for row in rows) for name in rows[0] if name not in used and not isinstance(rows[0][name], (dict, list))
    }
    return {"name": _name(Path(table).with_suffix("")), "modality": "text", "uri": _join(root, table), "record": record}, schema


def _file_source(modality: str, files: list[str], root: str, side: list[_Side]) -> dict[str, Any]:
    # Files without an ending (README, Makefile ...) cannot be told from others by a glob, and are left out.
    endings = sorted({ending for name in files if (ending := os.path.splitext(name)[1])})
    pattern = "**/*{" + ",".join(endings) + "}" if len(endings) > 1 else f"**/*{endings[0]}"
    source: dict[str, Any] = {"name": f"{modality}s", "modality": modality, "uri": _join(root, pattern)}
    parents = Counter(os.path.dirname(name).rsplit("/", 1)[-1] for name in files)
    known = set(files) | {name.rsplit("/", 1)[-1] for name in files}
    for table in side:
        if table.values & known:
            source["table"] = {"uri": table.uri, "key": table.key, "columns": table.columns}
            break
    if len(parents) > 1 and "label" not in source.get("table", {}).get("columns", []):
        source["label"] = {"from": "parent_dir"}
    return source


def _kind(values: Iterable[Any]) -> str:
    """The narrowest schema type that all values fit."""
    present = [value for value in values if value not in (None, "")]
    if not present:
        return "string"
    for kind, fits in (("bool", _is_bool), ("int", _is_int), ("float", _is_float), ("timestamp", _is_time)):
        if all(fits(value) for value in present):
            return kind
    return "string"


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_int(value: Any) -> bool:
    # A string with a leading zero is a code, not a number.
    return isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value.strip()) is not None)


def _is_float(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value.strip()) is not None
    )


def _is_time(value: Any) -> bool:
    if isinstance(value, datetime):
        return True
    try:
        return isinstance(value, str) and len(value) >= 8 and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _relative(folder: Path, base: Path) -> str:
    full = str(folder.absolute())
    inside = full == str(base) or full.startswith(f"{base}/")
    return os.path.relpath(full, base) if inside else full


def _join(root: str, name: str) -> str:
    return name if root == "." else f"{root}/{name}"


def _name(path: Path) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", str(path.name if path.is_dir() else path)).strip("-_")
    return (cleaned or "dataset")[:31]
