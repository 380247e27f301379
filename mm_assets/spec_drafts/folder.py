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

from mm_assets.spec_drafts.archives import archive_sources, is_archive, url_column
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import modality_of
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_embed_kernels.spec.dataset_spec import escape_glob, parse_spec
from mm_embed_kernels.spec.model import SAMPLE_FIELDS, user_column
from mm_resources.objects.compressed_streams import without_compression
from mm_resources.sources.records import open_records

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SKIPPED = {".yaml", ".yml", ".py", ".md5", ".sha256"}
_MOST_FILES, _MOST_ROWS = 20_000, 500
_TEXT = (
    "text",
    "content",
    "sentence",
    "caption",
    "body",
    "document",
    "message",
    "review",
    "description",
    "utterance",
    "question",
)
_LABEL = ("label", "category", "class", "target", "tag", "topic", "sentiment", "species")
_ID = ("id", "uid", "uuid", "key", "guid")


@dataclass(frozen=True)
class Draft:
    """A spec as YAML, what it was drawn from, and the tables that were left out, with the cause."""

    yaml: str
    dataset_version: str
    found: dict[str, int]
    skipped: dict[str, str]


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
    media, tables, archives = _look(folder)
    root = _relative(folder, base)
    sources: list[dict[str, Any]] = []
    schema: dict[str, str] = {}
    skipped: dict[str, str] = {}
    names = {key for files in media.values() for key in files}
    side: list[_Side] = []
    for table in tables:
        try:
            rows = _rows(folder / table)
        except UserError as error:
            skipped[table] = str(error)
            continue
        if matched := _matches(rows, names):
            columns = _columns(rows, {matched})
            side.append(_Side(_join(root, table), matched, columns, {str(row.get(matched)) for row in rows}))
            _declare(schema, rows, [column for column in columns if column not in SAMPLE_FIELDS])
        elif linked := url_column(rows):
            source, extra = _record_source(table, root, rows, "url", *linked)
            sources.append(source)
            _declare(schema, rows, extra)
        elif text := _text_column(rows):
            source, extra = _record_source(table, root, rows, "text", text, "text")
            sources.append(source)
            _declare(schema, rows, extra)
        else:
            skipped[table] = (
                "no column holds texts or URLs, and none names a media file" if rows else "no rows"
            )
    packed, empty = archive_sources(folder, archives, _join(escape_glob(root), ""))
    sources += _file_sources(media, root, side) + packed
    skipped |= empty
    if not sources:
        causes = "".join(f"; {table}: {cause}" for table, cause in skipped.items())
        raise UserError(f"{folder} holds no media and no table with a text column{causes}")
    _number_names(sources)
    spec = {
        "name": name or _name(folder),
        "version": version,
        **({"schema": schema} if schema else {}),
        "sources": sources,
    }
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    parsed = parse_spec(text, "draft")
    found = {f"{modality} files": len(files) for modality, files in sorted(media.items())} | {
        "tables": len(tables)
    }
    return Draft(
        text, parsed.dataset_version, found | ({"archives": len(archives)} if archives else {}), skipped
    )


def _columns(rows: list[dict[str, Any]], used: set[str]) -> list[str]:
    """Columns that can become table columns: named, flat, and not alike in all but case or punctuation."""
    taken: dict[str, str] = {}
    for name in rows[0] if rows else ():
        if name.strip() and name not in used and not isinstance(rows[0][name], (dict, list)):
            taken.setdefault(user_column(name).casefold(), name)
    return list(taken.values())


def _declare(schema: dict[str, str], rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Add columns with their types; where two tables differ in a type, the wider one; in a name's form, the first."""
    known = {user_column(name).casefold(): name for name in schema}
    for column in columns:
        kind = _kind(row.get(column) for row in rows)
        name = known.get(user_column(column).casefold(), column)
        if name == column:
            schema[column] = kind if schema.get(column, kind) == kind else _wider(schema[column], kind)


def _wider(a: str, b: str) -> str:
    return "float" if {a, b} == {"int", "float"} else "string"


def _number_names(sources: list[dict[str, Any]]) -> None:
    """Source names are unique: a second one of a name gets a number."""
    taken: set[str] = set()
    for source in sources:
        name, number = source["name"], 2
        while source["name"] in taken:
            source["name"], number = f"{name}-{number}", number + 1
        taken.add(source["name"])


def _look(folder: Path) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Media files by modality (decided by content), tables and archives, as keys below the folder."""
    media: dict[str, list[str]] = defaultdict(list)
    tables, archives = [], []
    for path in islice(_files(folder), _MOST_FILES):
        key, ending = os.path.relpath(path, folder), os.path.splitext(without_compression(path))[1].lower()
        if ending in TABLE_ENDINGS:
            tables.append(key)
        elif is_archive(path):
            archives.append(key)
        elif ending not in _SKIPPED and (modality := _modality(path)):
            media[modality].append(key)
    # A lone read-me is no modality of its own beside thousands of pictures.
    total = sum(map(len, media.values()))
    kept = {modality: files for modality, files in media.items() if len(files) > 2 or len(files) * 20 > total}
    return kept, tables, archives


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        yield from (os.path.join(parent, item) for item in sorted(files) if not item.startswith("."))


def _modality(path: str) -> str | None:
    # In this process, as in listings: signatures are compared, nothing is decoded.
    found = call_guarded(media_type, (Path(path),)) if os.path.isfile(path) else None
    return modality_of(found) if isinstance(found, str) else None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Raises UserError when the table cannot be read."""
    return [record.fields for record in islice(open_records(str(path)), _MOST_ROWS) if not record.error]


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
    strings = [
        name for name in rows[0] if sum(isinstance(row.get(name), str) for row in rows) * 2 > len(rows)
    ]
    named = [name for wanted in _TEXT for name in strings if name.lower() == wanted]
    if named:
        return named[0]
    lengths = {name: sum(len(str(row.get(name) or "")) for row in rows) / len(rows) for name in strings}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return longest if longest and lengths[longest] >= 15 else None


def _record_source(
    table: str, root: str, rows: list[dict[str, Any]], role: str, content: str, modality: str
) -> tuple[dict[str, Any], list[str]]:
    record = {role: content}
    for given, wanted in (("id", _ID), ("label", _LABEL)):
        column = next((name for name in rows[0] if name.lower() in wanted and name != content), None)
        values = [row.get(column) for row in rows] if column else []
        if column and (given == "label" or len(set(map(str, values))) == len(values)):
            record[given] = column
    name = _name(Path(without_compression(table)).with_suffix(""))
    source = {"name": name, "modality": modality, "uri": escape_glob(_join(root, table)), "record": record}
    return source, _columns(rows, set(record.values()))


def _file_sources(media: dict[str, list[str]], root: str, side: list[_Side]) -> list[dict[str, Any]]:
    """A source for each modality, by its endings; an ending that two modalities share is told apart by content.

    Files without an ending (README, Makefile ...) cannot be told from others by a glob: they are a source only where
    there is nothing else.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for modality, files in media.items():
        for name in files:
            if re.fullmatch(r"\.\w+", ending := os.path.splitext(name)[1]):
                owners[ending].add(modality)
    if media and not owners:
        return [{"name": "files", "modality": "auto", "uri": _join(escape_glob(root), "**/*")}]
    sources = []
    for modality, files in sorted(media.items()):
        endings = sorted(ending for ending, found in owners.items() if found == {modality})
        if endings:
            sources.append(_file_source(modality, f"{modality}s", endings, files, root, side))
    if shared := sorted(ending for ending, found in owners.items() if len(found) > 1):
        files = [name for found in media.values() for name in found if os.path.splitext(name)[1] in shared]
        sources.append(_file_source("auto", "mixed", shared, files, root, side))
    return sources


def _file_source(
    modality: str, name: str, endings: list[str], files: list[str], root: str, side: list[_Side]
) -> dict[str, Any]:
    pattern = "**/*{" + ",".join(endings) + "}" if len(endings) > 1 else f"**/*{endings[0]}"
    source: dict[str, Any] = {"name": name, "modality": modality, "uri": _join(escape_glob(root), pattern)}
    parents = Counter(os.path.dirname(key).rsplit("/", 1)[-1] for key in files)
    known = set(files) | {key.rsplit("/", 1)[-1] for key in files}
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
    return isinstance(value, int) or (
        isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value.strip()) is not None
    )


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
