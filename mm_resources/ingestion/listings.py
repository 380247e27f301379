"""Listings: what each source of a version held when the version was frozen."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mm_embed_kernels import identity, sql
from mm_embed_kernels.contracts import DATASET_REGISTRY, Contract
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.media.tracks import stream_type
from mm_embed_kernels.modalities import modalities, modality_of
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.model import user_column
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store

LISTING_BATCH = 4_096
_LINKED = """
WITH t AS MATERIALIZED (SELECT sample_id, key, regexp_extract(key, '[^/]*$') AS name FROM targets),
keys AS (SELECT key, min(sample_id) AS target FROM t GROUP BY key HAVING count(*) = 1),
names AS (SELECT name, min(sample_id) AS target FROM t GROUP BY name HAVING count(*) = 1)
SELECT l.* REPLACE (coalesce(keys.target, names.target, l.entity_id) AS entity_id)
FROM listing l LEFT JOIN keys ON l.link = keys.key LEFT JOIN names ON l.link = names.name
"""
# Schema metadata of a frozen listing: what its side table was.
_SIDE_TABLE = b"mm:side_table"


class Listings:
    """The frozen listings of a store, one for each source of a version."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def contract(self, spec: DatasetSpec) -> Contract:
        """The listing's contract with the user's columns and the modality that each sample was routed to."""
        fields = [pa.field("modality", pa.string()), pa.field("link", pa.string()), *spec.user_fields]
        return DATASET_REGISTRY.extend(
            fields, [item.name for item in spec.user_fields if not pa.types.is_floating(item.type)]
        )

    def freeze(self, spec: DatasetSpec, source: SourceSpec) -> str:
        """List a source once for all cells of the version, atomically; "" or why it cannot be listed.

        A source that lists nothing is not frozen, so that it can be listed once it holds something.
        """
        uri = self._uri(spec, source)
        if lance_datasets.open_dataset(uri) is not None:
            return ""
        table = side_table(open_source(source, dict(spec.schema_)))
        schema, causes = self.contract(spec).bare.with_metadata({_SIDE_TABLE: json.dumps(table)}), []

        def rows() -> Iterator[dict[str, Any]]:
            """The listing; remembers what broke it, which Lance's writer would wrap in a traceback."""
            try:
                yield from self._rows(spec, source)
            except Exception as error:
                causes.append(error)
                raise

        stream = rows()
        try:
            first = next(stream, None)
            if first is None and not source.allow_empty:
                return f"source {source.name} lists nothing at {source.uri}; mend the path or set allow_empty: true"
            lance_datasets.create(
                uri, schema, batched(itertools.chain([] if first is None else [first], stream), schema)
            )
        except Exception:
            if not causes:
                raise
            return f"source {source.name} cannot be listed: {cause_of(causes[0])}"
        return ""

    def is_frozen(self, spec: DatasetSpec, source: SourceSpec) -> bool:
        return lance_datasets.open_dataset(self._uri(spec, source)) is not None

    def frozen(
        self, spec: DatasetSpec, source: SourceSpec, columns: list[str] | None = None
    ) -> pa.RecordBatchReader:
        """The frozen listing of one source, of all modalities."""
        return self._frozen(spec, [source], self.contract(spec).bare, columns=columns)

    def frozen_side_table(self, spec: DatasetSpec, source: SourceSpec) -> list[dict[str, str]]:
        """`side_table` as it was when the source was frozen; empty too for a listing that does not say."""
        dataset = lance_datasets.open_dataset(self._uri(spec, source))
        found: list[dict[str, str]] = json.loads(
            ((dataset and dataset.schema.metadata) or {}).get(_SIDE_TABLE, b"[]")
        )
        return found

    def listing(self, spec: DatasetSpec, modality: str) -> pa.RecordBatchReader:
        """The frozen listing as a modality sees it, over all sources.

        A link that names another sample, by key or by a file name that is unique, makes the two one entity; any other
        link is an entity of its own, which all samples with that link share.
        """
        schema = self.contract(spec).bare
        mine = [source for source in spec.sources if source.modality in (modality, "auto")]
        rows = self._frozen(spec, mine, schema, f"modality = '{modality}'")
        if not any(declares_links(source) for source in mine):
            return rows

        def linked() -> Iterator[pa.RecordBatch]:
            # A track is never what a link means: its video has the same key.
            named = [source for source in spec.sources if source.track_of is None]
            targets = self._frozen(spec, named, schema, "link IS NULL", ["sample_id", "key"])
            with sql.query(_LINKED, listing=rows, targets=targets) as found:
                for batch in found:
                    yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, linked())

    def _frozen(
        self,
        spec: DatasetSpec,
        sources: list[SourceSpec],
        schema: pa.Schema,
        where: str | None = None,
        columns: list[str] | None = None,
    ) -> pa.RecordBatchReader:
        chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])

        def stream() -> Iterator[pa.RecordBatch]:
            for source in sources:
                dataset = lance_datasets.open_dataset(self._uri(spec, source))
                yield from lance_datasets.reader(dataset, schema, columns, where)

        return pa.RecordBatchReader.from_batches(chosen, stream())

    def preview(self, spec: DatasetSpec, modality: str) -> pa.RecordBatchReader:
        """The listing as it is frozen, or would be now; freezes nothing.

        Raises:
            UserError: in one line, when a source cannot be listed.
        """
        schema = self.contract(spec).bare

        def listed(source: SourceSpec) -> Iterator[dict[str, Any]]:
            try:
                yield from (row for row in self._rows(spec, source) if row["modality"] == modality)
            except Exception as error:
                raise UserError(
                    f"source {source.name} of {spec.dataset_version} cannot be listed: {cause_of(error)}"
                ) from error

        def stream() -> Iterator[pa.RecordBatch]:
            for source in spec.sources:
                if source.modality not in (modality, "auto"):
                    continue
                dataset = lance_datasets.open_dataset(self._uri(spec, source))
                if dataset is not None:
                    yield from lance_datasets.reader(dataset, schema, where=f"modality = '{modality}'")
                else:
                    yield from batched(listed(source), schema)

        return pa.RecordBatchReader.from_batches(schema, stream())

    def _uri(self, spec: DatasetSpec, source: SourceSpec) -> str:
        return self.store.uri(f"registry/listings/{spec.name}/{spec.version}/{source.name}.lance")

    def _rows(self, spec: DatasetSpec, source: SourceSpec) -> Iterator[dict[str, Any]]:
        opened = open_source(source, dict(spec.schema_))
        routed = (
            _routed(opened)
            if source.modality == "auto"
            else ((item, source.modality) for item in opened.list())
        )
        for item, modality in routed:
            sample = identity.sample_id(spec.name, source.name, item.key)
            # A track is of the same thing as its video.
            shown = identity.sample_id(spec.name, source.track_of, item.key) if source.track_of else sample
            yield {
                "sample_id": sample,
                "entity_id": identity.entity_id(spec.name, item.link) if item.link else shown,
                "key": item.key,
                "source_uri": item.uri,
                "source": source.name,
                "label": item.label,
                "group": item.group,
                "transcript": item.transcript,
                "locator": item.locator,
                "tag": item.tag,
                "size": item.size,
                "modified_at": item.modified_at,
                "error_class": item.error.error_class if item.error else None,
                "message": item.error.message if item.error else None,
                "modality": modality,
                "link": item.link,
                **{
                    user_column(name): value
                    for name, value in item.columns.items()
                    if name not in ("label", "transcript")
                },
            }


def side_table(source: Source) -> list[dict[str, str]]:
    """A source's side table as an object beside those that it lists: ``uri`` and ``tag``; empty where it has none."""
    table = source.spec.table
    if table is None:
        return []
    try:
        tag = source.tag(table.uri, "")
    except Exception:  # noqa: BLE001 - of any client; whoever reads the table says what is wrong
        tag = None
    return [{"uri": table.uri, "tag": tag}] if tag else []


def cause_of(error: Exception) -> str:
    """Why a source cannot be listed, in one line. Clients raise what they like; what they say is rarely whole without the name."""
    told = " ".join(str(error).split()) or "no cause is given"
    return (
        told
        if isinstance(error, (OSError, UserError, SampleError, ImportError))
        else f"{type(error).__name__}: {told}"
    )


def declares_links(source: SourceSpec) -> bool:
    return bool((source.record and source.record.link) or (source.table and "link" in source.table.columns))


def _routed(source: Source) -> Iterator[tuple[Listed, str]]:
    """The samples of an ``auto`` source with their modalities, by content.

    What nothing claims goes where its neighbours in the listing go, and its probe says there what it is: so that a
    stray archive makes no cell of its own.
    """
    waiting: list[Listed] = []
    latest = ""
    for item in source.list():
        latest = _claimed(source, item) or latest
        waiting.append(item)
        if latest or len(waiting) >= LISTING_BATCH:
            latest = latest or next(iter(modalities()))
            yield from ((each, latest) for each in waiting)
            waiting = []
    yield from ((each, next(iter(modalities()))) for each in waiting)


def _claimed(source: Source, item: Listed) -> str | None:
    """The modality that claims a sample's content, if one does."""
    if item.error is not None:
        return None
    # In this process: signatures are compared and tables of bounded size searched, nothing is decoded.
    found: str | SampleError | None = call_guarded(_modality, (source, item))
    if isinstance(found, SampleError):
        # A fault that may pass is not frozen: whoever fetches the sample tries again.
        item.error, found = None if found.retryable else found, None
    return found


def _modality(source: Source, item: Listed) -> str | None:
    data = source.fetch(item.uri, item.locator)
    with io.BytesIO(data) if isinstance(data, bytes) else data as stream:
        return modality_of(stream_type(stream))


def batched(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    held = []
    for row in rows:
        held.append(row)
        if len(held) >= LISTING_BATCH:
            yield pa.RecordBatch.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema)
