"""Specs drafted from a folder: its media files, tables and archives become sources."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mm_assets.spec_drafts.archives import archive_sources, is_archive, url_column
from mm_assets.spec_drafts.languages import file_texts, multilingual_embedder
from mm_assets.spec_drafts.names import clean_name, join_uri, number_names, relative_uri
from mm_assets.spec_drafts.tables import (
    ENDINGS,
    SideTable,
    declare_columns,
    file_column,
    first_rows,
    record_source,
    text_column,
    usable_columns,
)
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import modality_of
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_embed_kernels.spec.dataset_spec import escape_glob, parse_spec
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_resources.objects.compressed_streams import uncompressed_name

_SKIPPED = {".yaml", ".yml", ".py", ".md5", ".sha256"}
_MAX_FILES = 20_000


@dataclass(frozen=True)
class Draft:
    """A drafted spec.

    Attributes:
        yaml: the spec.
        found: number of files by kind, which the spec was drafted from.
        skipped: tables and archives that it leaves out, with the cause.
    """

    yaml: str
    dataset_version: str
    found: dict[str, int]
    skipped: dict[str, str]


@dataclass(frozen=True)
class _Contents:
    """Keys of the files below a folder: media by modality, tables, archives."""

    media: dict[str, list[str]]
    tables: list[str]
    archives: list[str]

    def counts(self) -> dict[str, int]:
        counts = {f"{modality} files": len(files) for modality, files in sorted(self.media.items())}
        counts["tables"] = len(self.tables)
        return counts | ({"archives": len(self.archives)} if self.archives else {})


def draft_spec(folder: Path, name: str, version: str, base: Path) -> Draft:
    """Draft a spec for a folder.

    Args:
        folder: folder to inspect.
        name: dataset name, or "" for the folder's.
        version: dataset version.
        base: folder of the spec file: URIs are written relative to it if they are below it.

    Raises:
        UserError: when the folder does not exist or contains nothing that a modality reads.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    contents, root = _scan(folder), relative_uri(folder, base)
    schema: dict[str, str] = {}
    texts = file_texts(folder / key for key in contents.media.get("text", ()))
    records, side, skipped = _table_sources(folder, root, contents, schema, texts)
    packed, unread = archive_sources(folder, contents.archives, join_uri(escape_glob(root), ""))
    sources = records + _file_sources(contents.media, root, side) + packed
    skipped |= unread
    if not sources:
        causes = "".join(f"; {table}: {cause}" for table, cause in skipped.items())
        raise UserError(f"{folder} holds no media and no table with a text column{causes}")
    number_names(sources)
    spec: dict[str, Any] = {
        "name": name or clean_name(folder),
        "version": version,
        **({"schema": schema} if schema else {}),
        "sources": sources,
    }
    if embedder := multilingual_embedder(texts):
        spec["embedders"] = {"text": [embedder]}
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    return Draft(text, parse_spec(text, "draft").dataset_version, contents.counts(), skipped)


def _scan(folder: Path) -> _Contents:
    """List the files below a folder; the modality of media files is decided by their content."""
    media: dict[str, list[str]] = defaultdict(list)
    tables, archives = [], []
    for path in islice(_files(folder), _MAX_FILES):
        key, ending = os.path.relpath(path, folder), os.path.splitext(uncompressed_name(path))[1].lower()
        if ending in ENDINGS:
            tables.append(key)
        elif is_archive(path):
            archives.append(key)
        elif ending not in _SKIPPED and (modality := _modality(path)):
            media[modality].append(key)
    # Two files or fewer among many of another modality, such as a README, are left out.
    total = sum(map(len, media.values()))
    kept = {modality: files for modality, files in media.items() if len(files) > 2 or len(files) * 20 > total}
    return _Contents(kept, tables, archives)


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        yield from (os.path.join(parent, item) for item in sorted(files) if not item.startswith("."))


def _modality(path: str) -> str | None:
    # In this process, as in listings: signatures are compared, nothing is decoded.
    mime = call_guarded(media_type, (Path(path),)) if os.path.isfile(path) else None
    return modality_of(mime) if isinstance(mime, str) else None


def _table_sources(
    folder: Path, root: str, contents: _Contents, schema: dict[str, str], texts: list[str]
) -> tuple[list[dict[str, Any]], list[SideTable], dict[str, str]]:
    """Draft the sources of tables, declare their columns in `schema`, and add their texts to `texts`.

    Returns:
        Sources of rows, side tables of media files, and the tables that are neither, with the cause.
    """
    names = {key for files in contents.media.values() for key in files}
    sources: list[dict[str, Any]] = []
    side: list[SideTable] = []
    skipped: dict[str, str] = {}
    for table in contents.tables:
        try:
            rows = first_rows(folder / table)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's table causes is that table's alone
            skipped[table] = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            continue
        if key := file_column(rows, names):
            columns = usable_columns(rows, {key})
            values = {str(row.get(key)) for row in rows}
            side.append(SideTable(join_uri(root, table), key, columns, values))
            declare_columns(schema, rows, [column for column in columns if column not in SAMPLE_FIELDS])
        elif urls := url_column(rows):
            source, unused = record_source(table, root, rows, "url", *urls)
            sources.append(source)
            declare_columns(schema, rows, unused)
        elif text := text_column(rows):
            texts += [row[text] for row in rows if isinstance(row.get(text), str)]
            source, unused = record_source(table, root, rows, "text", text, "text")
            sources.append(source)
            declare_columns(schema, rows, unused)
        elif rows:
            skipped[table] = "no column holds texts or URLs, and none names a media file"
        else:
            skipped[table] = "no rows"
    return sources, side, skipped


def _file_sources(media: dict[str, list[str]], root: str, side: list[SideTable]) -> list[dict[str, Any]]:
    """Draft a source for each modality, by the endings of its files, and one for endings of several.

    A glob cannot select files without an ending (README, Makefile ...): they are a source only where there is
    nothing else.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for modality, files in media.items():
        for name in files:
            if re.fullmatch(r"\.\w+", ending := os.path.splitext(name)[1]):
                owners[ending].add(modality)
    if media and not owners:
        return [{"name": "files", "modality": "auto", "uri": join_uri(escape_glob(root), "**/*")}]
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
    modality: str, name: str, endings: list[str], files: list[str], root: str, side: list[SideTable]
) -> dict[str, Any]:
    pattern = "**/*{" + ",".join(endings) + "}" if len(endings) > 1 else f"**/*{endings[0]}"
    source: dict[str, Any] = {
        "name": name,
        "modality": modality,
        "uri": join_uri(escape_glob(root), pattern),
    }
    parents = Counter(os.path.dirname(key).rsplit("/", 1)[-1] for key in files)
    known = set(files) | {key.rsplit("/", 1)[-1] for key in files}
    for table in side:
        if table.values & known:
            source["table"] = {"uri": table.uri, "key": table.key, "columns": table.columns}
            break
    if len(parents) > 1 and "label" not in source.get("table", {}).get("columns", []):
        source["label"] = {"from": "parent_dir"}
    return source
