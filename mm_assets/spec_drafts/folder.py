"""Specs drafted from a folder: its media files, tables and archives become sources."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mm_assets.spec_drafts.archives import archive_sources, url_column
from mm_assets.spec_drafts.contents import EMPTY, FEW, MISNAMED, UNKNOWN, WILL_FAIL, Contents, scan_folder
from mm_assets.spec_drafts.languages import file_texts, multilingual_embedder
from mm_assets.spec_drafts.names import clean_name, join_uri, number_names, relative_uri
from mm_assets.spec_drafts.side_tables import FileNames, SideTable, file_column, linked_text
from mm_assets.spec_drafts.tables import (
    Rows,
    declare_columns,
    first_rows,
    record_source,
    text_column,
    usable_columns,
    without_path,
)
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import escape_glob, parse_spec
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_resources.sources.globs import fold_endings

# The JSON Schema that editors read, beside the spec; its dot keeps it out of the sources.
SCHEMA_FILE = ".dataset.schema.json"
_HEAD = "# yaml-language-server: $schema={schema}\n"


@dataclass(frozen=True)
class Draft:
    """A drafted spec.

    Attributes:
        yaml: the spec.
        found: number of files by kind, which the spec was drafted from.
        skipped: tables and archives that it leaves out, with the cause.
        left_out: other files that it leaves out, by cause; and those that its globs match and will fail.
    """

    yaml: str
    dataset_version: str
    found: dict[str, int]
    skipped: dict[str, str]
    left_out: dict[str, list[str]]


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
    contents, root = scan_folder(folder), relative_uri(folder, base)
    tables = _Tables(folder, root, contents)
    tables.draft()
    packed, unread = archive_sources(folder, contents.archives, join_uri(escape_glob(root), ""))
    sources = tables.sources + _file_sources(contents, root, tables) + packed
    skipped = {name: cause for name, cause in tables.skipped.items() if name not in tables.used} | unread
    if not sources:
        causes = "".join(f"; {table}: {cause}" for table, cause in skipped.items())
        others = "".join(f"; {len(keys):,} files {cause}" for cause, keys in contents.left_out.items())
        raise UserError(f"{folder} holds no media and no table with a text column{causes}{others}")
    number_names(sources)
    spec: dict[str, Any] = {
        "name": name or clean_name(folder),
        "version": version,
        **({"schema": tables.schema} if tables.schema else {}),
        "sources": sources,
    }
    if embedder := multilingual_embedder(tables.texts):
        spec["embedders"] = {"text": [embedder]}
    text = _HEAD.format(schema=SCHEMA_FILE) + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    dataset_version = parse_spec(text, "draft").dataset_version
    left_out = _split_matched(contents.left_out, sources)
    return Draft(text, dataset_version, contents.counts(), skipped, left_out)


class _Tables:
    """The tables of a folder, as sources of rows and side tables.

    Attributes:
        sources: sources of rows.
        side: side tables of media files, those of most files first.
        skipped: the tables that are neither, with the cause.
        used: side tables that a source has.
        schema: columns of all tables with their types.
        texts: texts of files and tables, of which the embedder is chosen.
    """

    def __init__(self, folder: Path, root: str, contents: Contents) -> None:
        self.folder, self.root, self.keys = folder, root, contents.tables
        self.media = contents.media
        self.files = FileNames(key for files in contents.media.values() for key in files)
        self.sources: list[dict[str, Any]] = []
        self.side: list[SideTable] = []
        self.skipped: dict[str, str] = {}
        self.schema: dict[str, str] = {}
        self.used: set[str] = set()
        self.texts = file_texts(folder / key for key in contents.media.get("text", ()))

    def draft(self) -> None:
        """Draft the sources of all tables."""
        for table in self.keys:
            try:
                rows = first_rows(self.folder / table)
            except Exception as error:  # noqa: BLE001 - whatever a stranger's table causes is that table's alone
                cause = " ".join(str(error).split()) or "it cannot be read"
                self.skipped[table] = without_path(cause, self.folder / table)
                continue
            self._draft_table(table, rows)
        self.side.sort(key=lambda table: -self.files.count(table.values))

    def _draft_table(self, table: str, rows: Rows) -> None:
        if key := file_column(rows, self.files):
            text = linked_text(rows, key, self.files)
            if text is not None:
                self._add_source(table, rows, "text", text, "text", key)
            columns = [name for name in usable_columns(rows, {key}) if name not in (text, "id")]
            if columns or text is None:
                values = [str(row.get(key)) for row in rows]
                self.side.append(SideTable(table, join_uri(self.root, table), key, columns, values, rows))
        elif urls := url_column(rows):
            self._add_source(table, rows, "url", *urls)
        elif text := text_column(rows):
            self._add_source(table, rows, "text", text, "text")
        else:
            self.skipped[table] = (
                "no column holds texts or URLs, and none names a media file" if rows else "no rows"
            )

    def _add_source(
        self, table: str, rows: Rows, role: str, content: str, modality: str, link: str | None = None
    ) -> None:
        if modality == "text":
            self.texts += [row[content] for row in rows if isinstance(row.get(content), str)]
        source, unused = record_source(table, self.root, rows, role, content, modality, link)
        self.sources.append(source)
        declare_columns(self.schema, rows, unused)

    def side_table(self, files: list[str]) -> SideTable | None:
        """Take the table that describes most of a source's files; name the others, which it cannot have."""
        names = FileNames(files)
        counts = {table.name: names.count(table.values) for table in self.side}
        fitting = sorted((table for table in self.side if counts[table.name]), key=lambda t: -counts[t.name])
        if not fitting:
            return None
        chosen = fitting[0]
        self.used.add(chosen.name)
        declare_columns(
            self.schema, chosen.rows, [name for name in chosen.columns if name not in SAMPLE_FIELDS]
        )
        for other in fitting[1:]:
            self.skipped[other.name] = (
                f"describes files that {chosen.name} describes, and a source has one side table; join them"
            )
        return chosen


def _file_sources(contents: Contents, root: str, tables: _Tables) -> list[dict[str, Any]]:
    """Draft a source for each modality, by the endings of its files, and one for endings of several.

    A glob cannot select files without an ending (README, Makefile ...): they are a source only where there is
    nothing else.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for modality, files in contents.media.items():
        for name in files:
            if re.fullmatch(r"\.\w+", ending := _ending(name)):
                owners[ending].add(modality)
    if contents.media and not owners:
        everything = {"name": "files", "modality": "auto", "uri": join_uri(escape_glob(root), "**/*")}
        return [{**everything, **_exclusions(contents, None)}]
    sources = []
    for modality, files in sorted(contents.media.items()):
        endings = sorted(ending for ending, found in owners.items() if found == {modality})
        if endings:
            sources.append(_file_source(modality, f"{modality}s", endings, files, root, tables))
    if shared := sorted(ending for ending, found in owners.items() if len(found) > 1):
        files = [name for found in contents.media.values() for name in found if _ending(name) in shared]
        sources.append(_file_source("auto", "mixed", shared, files, root, tables))
    for source in sources:
        endings = re.findall(r"\.\w+", source["uri"].rpartition("*")[2])
        source.update(_exclusions(contents, set(endings)))
    return sources


def _file_source(
    modality: str, name: str, endings: list[str], files: list[str], root: str, tables: _Tables
) -> dict[str, Any]:
    pattern = "**/*{" + ",".join(endings) + "}" if len(endings) > 1 else f"**/*{endings[0]}"
    source: dict[str, Any] = {
        "name": name,
        "modality": modality,
        "uri": join_uri(escape_glob(root), pattern),
    }
    parents = Counter(os.path.dirname(key).rsplit("/", 1)[-1] for key in files)
    if (table := tables.side_table(files)) is not None:
        source["table"] = {"uri": table.uri, "key": table.key, "columns": [*table.columns]}
    if len(parents) > 1 and "label" not in source.get("table", {}).get("columns", []):
        source["label"] = {"from": "parent_dir"}
    return source


def _split_matched(left_out: dict[str, list[str]], sources: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the files that are left out by cause, those apart that a glob matches whatever they contain."""
    globs = "".join(source["uri"].rpartition("*")[2] for source in sources if "*" in source["uri"])
    endings = set(re.findall(r"\.\w+", globs))
    found: dict[str, list[str]] = {}
    for cause, keys in left_out.items():
        for key in keys:
            is_matched = cause in (EMPTY, FEW, MISNAMED, UNKNOWN) and _ending(key) in endings
            found.setdefault(WILL_FAIL if is_matched else cause, []).append(key)
    return found


def _exclusions(contents: Contents, endings: set[str] | None) -> dict[str, list[str]]:
    """Return the `exclude` of a source whose glob would match what systems strew; {} where none would."""
    names = [
        name
        for name, keys in contents.litter.items()
        if endings is None or any(_ending(key) in endings for key in keys)
    ]
    return {"exclude": sorted(names)} if names else {}


def _ending(key: str) -> str:
    """Return the ending of a file in lower case; globs match it in any case."""
    return os.path.splitext(fold_endings(key))[1]
