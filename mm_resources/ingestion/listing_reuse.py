"""Rows of an earlier listing that a new one takes over: those of objects whose tag stands, unread.

The result equals a full listing. The number that a repeated key gets depends on the objects before it; so
where repeated keys connect an object that stands with one that does not, the source is listed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels import sql
from mm_embed_kernels.identity import canonical_json, digest, environment_digest
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.ingestion.listing_rows import bound_tag, listed_uri
from mm_resources.sources import Source
from mm_resources.sources.globs import glob_root
from mm_resources.storage import lance_datasets
from mm_resources.storage.missing_columns import read_columns
from mm_resources.storage.spool import TableSpool
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import damage_of

if TYPE_CHECKING:
    import lance

# Raised when listings of the same object change.
_CODE_VERSION = "2"
# Schema metadata of a frozen listing: digest of all that its rows depend on besides the objects.
SETTINGS = b"mm:listing"
# The first version of a listing; later ones lack rows that were forgotten.
_FIRST = 1
# Earlier versions that are looked at where the spec names no parent.
_LOOKED_AT = 8
# Errors that the bytes of a record decide; an object with others is read again.
_LASTING = ("bad_record", "missing_field", "schema_mismatch", "encoding_unknown", "duplicate_key")

_OBJECTS = f"""
SELECT source_uri AS uri, min(tag) AS tag FROM listed GROUP BY 1
HAVING min(tag) = max(tag) AND min(tag) <> '' AND bool_and(coalesce(locator, '') <> '')
   AND bool_and(error_class IS NULL OR error_class IN ({sql.literals(_LASTING)}))
"""
_STEM = "regexp_replace(key, '#[0-9]+$', '')"
_REPEATED = f"SELECT DISTINCT {_STEM} AS stem FROM listed WHERE key <> {_STEM}"
_CONNECTED = f"""
SELECT l.stem FROM (SELECT {_STEM} AS stem, u.uri IS NOT NULL AS stands
                    FROM listed LEFT JOIN standing u ON source_uri = u.uri) l
JOIN repeated USING (stem) GROUP BY 1 HAVING bool_or(stands) AND NOT bool_and(stands) LIMIT 1
"""
_COLLIDING = """
SELECT 1 AS hit FROM found JOIN (
  SELECT key FROM listed JOIN standing u ON source_uri = u.uri
) USING (key) LIMIT 1
"""


def listing_settings(spec: DatasetSpec, source: SourceSpec, opened: Source) -> str:
    """Return the digest of all that the rows of a listing depend on besides the source's objects."""
    declared = source.model_dump(mode="json", exclude={"uri", "fetch", "allow_empty", "blobs"})
    if not source.exclude:
        del declared["exclude"]  # as listings of before have it
    return digest(
        "listing",
        _CODE_VERSION,
        environment_digest(),
        opened.flavour,
        glob_root(source.uri)[0],
        str(source.fetch.max_bytes),
        canonical_json(declared),
        canonical_json([spec.name, dict(spec.schema_)]),
    )


@dataclass(frozen=True)
class EarlierRows:
    """The rows of an earlier listing whose objects stand.

    Attributes:
        dataset: the earlier listing.
        uris: of the objects whose tag stands.
    """

    dataset: lance.LanceDataset
    uris: frozenset[str]

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the objects that stand."""
        wanted = pa.array(sorted(self.uris), pa.string())
        for batch in read_columns(self.dataset, schema):
            if (rows := batch.filter(pc.is_in(batch["source_uri"], wanted))).num_rows:
                yield rows

    def has_key_of(self, found: TableSpool) -> bool:
        """Return whether a newly listed row has a key of these rows, whose numbers then depend on it."""
        statement = sql.query(
            _COLLIDING,
            found=found.reader(["key"]),
            listed=self._read("key", "source_uri"),
            standing=self._table,
        )
        with statement as hits:
            return any(batch.num_rows for batch in hits)

    @property
    def _table(self) -> pa.Table:
        return pa.table({"uri": pa.array(sorted(self.uris), pa.string())})

    def _read(self, *names: str) -> pa.RecordBatchReader:
        return lance_datasets.reader(self.dataset, self.dataset.schema, list(names))

    @property
    def is_independent(self) -> bool:
        """True if no repeated key connects these rows with others of the listing."""
        repeated = sql.fetch(_REPEATED, listed=self._read("key"))
        if not repeated.num_rows:
            return True
        read = self._read("key", "source_uri")
        return not sql.fetch(_CONNECTED, listed=read, standing=self._table, repeated=repeated).num_rows


def earlier_rows(
    store: Store, spec: DatasetSpec, source: SourceSpec, opened: Source, settings: str
) -> EarlierRows | None:
    """Return the rows that a listing may take over from the parent's, or the last one's; None for none."""
    # The modality of a sample of no known type is that of its neighbours; a side table is read anyway.
    if source.modality == "auto" or source.table is not None:
        return None
    dataset = _earlier_listing(store, spec, source, settings)
    if dataset is None:
        return None
    # A URL with a secret is listed without it, so that it cannot be compared.
    now = {uri: bound_tag(tag) for uri, tag in opened.containers() if tag and listed_uri(uri) == uri}
    names = ["source_uri", "tag", "locator", "error_class"]
    stored = sql.fetch(_OBJECTS, listed=lance_datasets.reader(dataset, dataset.schema, names))
    pairs = zip(stored["uri"].to_pylist(), stored["tag"].to_pylist(), strict=True)
    rows = EarlierRows(dataset, frozenset(uri for uri, tag in pairs if now.get(uri) == tag))
    return rows if rows.uris and rows.is_independent else None


def complete_listing(
    earlier: EarlierRows | None,
    schema: pa.Schema,
    list_batches: Callable[[frozenset[str]], Iterator[pa.RecordBatch]],
) -> Iterator[pa.RecordBatch]:
    """Yield the listing of a source: earlier rows for objects that stand, and new rows.

    Args:
        list_batches: lists the source without the samples of some objects.
    """
    if earlier is not None:
        found = TableSpool(schema)
        for batch in list_batches(earlier.uris):
            found.add(pa.Table.from_batches([batch]))
        if not earlier.has_key_of(found):
            yield from earlier.batches(schema)
            yield from found.reader()
            return
    yield from list_batches(frozenset())


def _earlier_listing(
    store: Store, spec: DatasetSpec, source: SourceSpec, settings: str
) -> lance.LanceDataset | None:
    folder = f"registry/listings/{spec.name}"
    versions = [spec.parent] if spec.parent else store.names(folder)
    found = []
    for version in [each for each in versions if each != spec.version][-_LOOKED_AT:]:
        dataset = lance_datasets.open_dataset(store.uri(f"{folder}/{version}/{source.name}.lance"))
        if (
            dataset is not None
            and dataset.version == _FIRST
            and (dataset.schema.metadata or {}).get(SETTINGS, b"").decode() == settings
            and not damage_of(dataset)[0]
        ):
            found.append((dataset.versions()[0]["timestamp"], version, dataset))
    return max(found)[2] if found else None
