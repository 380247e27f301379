"""Listings: the samples of each source of a version, frozen once for all of its cells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import DATASET_REGISTRY, Contract
from mm_embed_kernels.errors import UserError, sentence_of
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import redact_text, strip_secrets
from mm_resources.ingestion.listing_reuse import SETTINGS, complete_listing, earlier_rows, listing_settings
from mm_resources.ingestion.listing_rows import ListingRows, bound_tag, listed_uri
from mm_resources.ingestion.modality_routes import by_content
from mm_resources.ingestion.spec_secrets import open_revealed, source_uris
from mm_resources.sources import Listed, Source, Unmatched
from mm_resources.storage import lance_datasets
from mm_resources.storage.missing_columns import read_columns
from mm_resources.storage.secret_table import SecretTable
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import require_intact

LISTING_BATCH = 4_096
# Samples that a look at a source with a side table lists.
_LOOKED_AT = 20_000
# Characters of a client's message.
_CAUSE = 4_000
_LINKED = """
WITH t AS MATERIALIZED (SELECT sample_id, key, regexp_extract(key, '[^/]*$') AS name FROM targets),
keys AS (SELECT key, min(sample_id) AS target FROM t GROUP BY key HAVING count(*) = 1),
names AS (SELECT name, min(sample_id) AS target FROM t GROUP BY name HAVING count(*) = 1)
SELECT l.* REPLACE (coalesce(keys.target, names.target, l.entity_id) AS entity_id)
FROM listing l LEFT JOIN keys ON l.link = keys.key LEFT JOIN names ON l.link = names.name
"""
# Schema metadata of a frozen listing: URI and tag of its side table.
_SIDE_TABLE = b"mm:side_table"
# The same: what side table and files lack of each other.
_UNMATCHED = b"mm:unmatched"
# Links without effect: they name no sample, and no other sample has the same one. First the reported ones.
_DANGLING = """
WITH t AS MATERIALIZED (SELECT key, regexp_extract(key, '[^/]*$') AS name FROM targets),
named AS (
  SELECT key AS link FROM t GROUP BY key HAVING count(*) = 1
  UNION SELECT name FROM t GROUP BY name HAVING count(*) = 1
), used AS MATERIALIZED (SELECT link, count(*) AS n FROM links WHERE link IS NOT NULL GROUP BY link)
SELECT count(*) FILTER (n = 1 AND named.link IS NULL) AS dangling, coalesce(sum(n), 0)::BIGINT AS links,
       coalesce(min(used.link, 3) FILTER (n = 1 AND named.link IS NULL), []) AS names
FROM used LEFT JOIN named USING (link)
"""
_LINKS = pa.schema([("link", pa.string())])


class Listings:
    """The frozen listings of a store, one for each source of a version."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def contract(self, spec: DatasetSpec) -> Contract:
        """Return the listing's contract, with the user's columns and the modality of each sample."""
        fields = [pa.field("modality", pa.string()), pa.field("link", pa.string()), *spec.user_fields]
        return DATASET_REGISTRY.extend(
            fields, [item.name for item in spec.user_fields if not pa.types.is_floating(item.type)]
        )

    def freeze(self, spec: DatasetSpec, source: SourceSpec) -> str:
        """Freeze the listing of a source, atomically and once for all cells; return "" or why it failed.

        A source without samples is not frozen, so that it can be listed when it has some.
        """
        uri = self._uri(spec, source)
        if lance_datasets.open_dataset(uri) is not None:
            return ""
        try:
            opened = open_revealed(spec, source, SecretTable(self.store))
            table = side_table_objects(opened)
        except UserError as error:
            return f"source {source.name} cannot be listed: {describe_cause(error)}"
        settings = listing_settings(spec, source, opened)
        metadata = {_SIDE_TABLE: json.dumps(table), SETTINGS: settings}
        schema, causes = self.contract(spec).bare.with_metadata(metadata), []

        def list_batches(unread: frozenset[str]) -> Iterator[pa.RecordBatch]:
            opened.unread = unread
            return row_batches(self._rows(spec, source, opened, keep=True), schema.remove_metadata())

        def batches() -> Iterator[pa.RecordBatch]:
            """Yield the listing, and remember the error that ends it: Lance's writer would wrap it."""
            try:
                earlier = earlier_rows(self.store, spec, source, opened, settings)
                yield from complete_listing(earlier, schema.remove_metadata(), list_batches)
            except Exception as error:  # any client's error; recorded and raised again
                causes.append(error)
                raise

        stream = batches()
        try:
            first = next(stream, None)
            if first is None and not source.allow_empty:
                return (
                    f"source {source.name} lists nothing at {strip_secrets(source.uri)}; "
                    "mend the path or set allow_empty: true"
                )
            every = itertools.chain([] if first is None else [first], stream)
            lance_datasets.create(uri, schema, every, lambda: {_UNMATCHED: _dump_unmatched(opened)})
        except Exception:  # Lance's wrapper of any client's error
            if not causes:
                raise
            return f"source {source.name} cannot be listed: {describe_cause(causes[0])}"
        return ""

    def is_frozen(self, spec: DatasetSpec, source: SourceSpec) -> bool:
        """Return whether the listing of a source is frozen."""
        return lance_datasets.open_dataset(self._uri(spec, source)) is not None

    def frozen_listing(
        self, spec: DatasetSpec, source: SourceSpec, columns: list[str] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the frozen listing of one source, of all modalities."""
        return self._stream(spec, [source], self.contract(spec).bare, columns=columns)

    def frozen_side_table(self, spec: DatasetSpec, source: SourceSpec) -> list[dict[str, str]]:
        """Return `side_table_objects` as of freezing; empty also for a listing that did not record it."""
        dataset = lance_datasets.open_dataset(self._uri(spec, source))
        metadata = (dataset and dataset.schema.metadata) or {}
        objects: list[dict[str, str]] = json.loads(metadata.get(_SIDE_TABLE, b"[]"))
        return objects

    def frozen_unmatched(self, spec: DatasetSpec, source: SourceSpec) -> dict[str, Unmatched]:
        """Return what side table and files lacked of each other at freezing; {} where it was not recorded."""
        dataset = lance_datasets.open_dataset(self._uri(spec, source))
        metadata = (dataset and dataset.schema.metadata) or {}
        stored = json.loads(metadata.get(_UNMATCHED, b"{}"))
        return {what: Unmatched(**found) for what, found in stored.items()}

    def dangling_links(self, spec: DatasetSpec, modality: str) -> tuple[Unmatched, int]:
        """Return a modality's links that name no sample and that no other sample has; and all its links."""
        mine = spec.sources_of(modality)
        if not any(declares_links(source) for source in mine):
            return Unmatched(0, []), 0
        schema = self.contract(spec).bare
        targets = [source for source in spec.sources if source.track_of is None]
        (found,) = sql.fetch(
            _DANGLING,
            links=self._stream(spec, mine, schema, f"modality = '{modality}'", _LINKS.names),
            targets=self._stream(spec, targets, schema, "link IS NULL", ["key"]),
        ).to_pylist()
        return Unmatched(found["dangling"], found["names"]), found["links"]

    def listing(self, spec: DatasetSpec, modality: str) -> pa.RecordBatchReader:
        """Stream the frozen listing of a modality, over all sources.

        A link that names another sample, by key or by a unique file name, makes the two one entity; any other
        link is an entity of its own, which all samples with that link share.
        """
        schema = self.contract(spec).bare
        mine = spec.sources_of(modality)
        rows = self._stream(spec, mine, schema, f"modality = '{modality}'")
        if not any(declares_links(source) for source in mine):
            return rows

        def linked_batches() -> Iterator[pa.RecordBatch]:
            # A link never means a sound track: its video has the same key.
            linkable = [source for source in spec.sources if source.track_of is None]
            targets = self._stream(spec, linkable, schema, "link IS NULL", ["sample_id", "key"])
            with sql.query(_LINKED, listing=rows, targets=targets) as batches:
                for batch in batches:
                    yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, linked_batches())

    def _stream(
        self,
        spec: DatasetSpec,
        sources: list[SourceSpec],
        schema: pa.Schema,
        where: str | None = None,
        columns: list[str] | None = None,
    ) -> pa.RecordBatchReader:
        chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        for source in sources:
            if (dataset := lance_datasets.open_dataset(self._uri(spec, source))) is not None:
                require_intact(dataset, f"listing of {spec.dataset_version}, source {source.name}")

        def stream() -> Iterator[pa.RecordBatch]:
            for source in sources:
                dataset = lance_datasets.open_dataset(self._uri(spec, source))
                yield from read_columns(dataset, chosen, where)

        return pa.RecordBatchReader.from_batches(chosen, stream())

    def preview(self, spec: DatasetSpec, modality: str) -> pa.RecordBatchReader:
        """Stream the listing as it is frozen or, where it is not, as it would be now; freeze nothing.

        Raises:
            UserError: in one line, when a source cannot be listed.
        """
        schema = self.contract(spec).bare

        def list_rows(source: SourceSpec) -> Iterator[dict[str, Any]]:
            try:
                opened = self._open(spec, source)
                yield from (
                    row for row in self._rows(spec, source, opened, keep=False) if row["modality"] == modality
                )
            except Exception as error:  # any client's error
                raise UserError(
                    f"source {source.name} of {spec.dataset_version} cannot be listed: "
                    f"{describe_cause(error)}"
                ) from error

        def stream() -> Iterator[pa.RecordBatch]:
            for source in spec.sources_of(modality):
                dataset = lance_datasets.open_dataset(self._uri(spec, source))
                if dataset is not None:
                    yield from read_columns(dataset, schema, f"modality = '{modality}'")
                else:
                    yield from row_batches(list_rows(source), schema)

        return pa.RecordBatchReader.from_batches(schema, stream())

    def _uri(self, spec: DatasetSpec, source: SourceSpec) -> str:
        return self.store.uri(f"registry/listings/{spec.name}/{spec.version}/{source.name}.lance")

    def _open(self, spec: DatasetSpec, source: SourceSpec) -> Source:
        return open_revealed(spec, source, SecretTable(self.store))

    def look(self, spec: DatasetSpec, source: SourceSpec) -> tuple[Listed | None, bool | None]:
        """Look at a source as it is now.

        Returns:
            The first sample, None where it lists nothing; and whether any of its first samples has a row in
            the side table, None without such a table, or with so many samples that the first say nothing.

        Its label and columns may be missing: what describes a sample can stand behind all others.

        Raises:
            OSError, UserError: when it cannot be listed; other errors of the client of its file system.
        """
        opened = self._open(spec, source)
        opened.peeks = True
        items = iter(opened.list())
        first = next(items, None)
        if source.table is None or first is None:
            return first, None
        rest = sum(1 for _ in itertools.islice(items, _LOOKED_AT))
        missing = opened.unmatched().get("files without a row")
        if missing is None or (rest == _LOOKED_AT and missing.count > rest):
            return first, None
        return first, missing.count <= rest

    def _rows(
        self, spec: DatasetSpec, source: SourceSpec, opened: Source, keep: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a source as it is now.

        Args:
            keep: whether the rows are stored, and with them, apart, the secrets of their URLs.
        """
        # Of its own: another thread's listing must not take what waits to be stored.
        secrets = SecretTable(self.store)
        routed = (
            by_content(opened, LISTING_BATCH)
            if source.modality == "auto"
            else ((item, source.modality) for item in opened.list())
        )
        known = secrets.values(source_uris(source))
        yield from ListingRows(spec, source, secrets if keep else None, known).rows(routed)


def side_table_objects(source: Source) -> list[dict[str, str]]:
    """Return ``uri`` and ``tag`` of a source's side table, which its listing lacks; empty without one."""
    table = source.spec.table
    if table is None:
        return []
    try:
        tag = source.tag(table.uri, "")
    except Exception:  # noqa: BLE001 - any client's error; reading the table raises the cause
        tag = None
    return [{"uri": listed_uri(table.uri), "tag": bound_tag(tag)}] if tag else []


def _dump_unmatched(source: Source) -> bytes:
    """Return what a listed source's side table and files lack of each other, as JSON."""
    found = {what: asdict(each) for what, each in source.unmatched().items()}
    return json.dumps(found).encode()


def describe_cause(error: Exception) -> str:
    """Return why a source cannot be listed, in one line."""
    return sentence_of(type(error).__name__, redact_text(str(error)[:_CAUSE]))


def declares_links(source: SourceSpec) -> bool:
    """Return whether a source's records or side table have a column of links."""
    return bool((source.record and source.record.link) or (source.table and "link" in source.table.columns))


def row_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Convert rows to batches of at most `LISTING_BATCH` rows."""
    stream = iter(rows)
    while chunk := list(itertools.islice(stream, LISTING_BATCH)):
        yield pa.RecordBatch.from_pylist(chunk, schema=schema)
