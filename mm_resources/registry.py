"""The registry: frozen specs, frozen listings, and pins (what readers resolve)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa

from mm_embed_kernels import identity, relational
from mm_embed_kernels.contracts import DATASET_REGISTRY, Contract
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.modalities import modalities, modality_of, sniff
from mm_embed_kernels.modalities.base import HEAD_BYTES
from mm_embed_kernels.spec import DatasetSpec, SourceSpec, parse_spec, user_column
from mm_resources import lance_io
from mm_resources.sources import Listed, Source, open_source
from mm_resources.store import Cell, Store

LISTING_BATCH = 4_096
_LINKED = """
WITH t AS MATERIALIZED (SELECT sample_id, key, regexp_extract(key, '[^/]*$') AS name FROM targets),
keys AS (SELECT key, min(sample_id) AS target FROM t GROUP BY key HAVING count(*) = 1),
names AS (SELECT name, min(sample_id) AS target FROM t GROUP BY name HAVING count(*) = 1)
SELECT l.* REPLACE (coalesce(keys.target, names.target, l.entity_id) AS entity_id)
FROM listing l LEFT JOIN keys ON l.link = keys.key LEFT JOIN names ON l.link = names.name
"""
_PIN = re.compile(r"^(\d{8})\.json$")


@dataclass(frozen=True)
class PinnedTable:
    """One feature table at one Lance version, kept by a tag."""

    embedder: str
    settings: dict[str, Any]
    fingerprint: str
    weights_hash: str
    preprocessing: dict[str, Any]
    primary: bool
    table: str
    lance_version: int
    tag: str
    rows: int
    dimension: int
    space: str
    index: str
    digest: str
    recall: float | None


@dataclass(frozen=True)
class Pin:
    """What is published of a cell: the only thing that readers resolve."""

    number: int
    dataset: str
    version: str
    modality: str
    run_id: str
    published_at: str
    data_version: str
    tables: list[PinnedTable]
    accounting: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    override: str = ""

    @property
    def primary(self) -> PinnedTable:
        return next(table for table in self.tables if table.primary)

    def table(self, embedder: str | None) -> PinnedTable:
        """The table of an embedder, by default the primary one's.

        Raises:
            UserError: naming the embedders that there are.
        """
        if embedder is None:
            return self.primary
        for table in self.tables:
            if table.embedder == embedder:
                return table
        raise UserError(
            f"{self.dataset}@{self.version} {self.modality} has no embedder {embedder!r}; it has: "
            + ", ".join(table.embedder for table in self.tables)
        )


class Registry:
    """Specs, listings and pins of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- specs

    def register(self, spec: DatasetSpec) -> bool:
        """Freeze a dataset version; False when exactly this spec was registered before.

        Raises:
            UserError: when the version is registered with another spec, or the spec names what does not exist.
        """
        self._check(spec)
        record = {"spec": spec.model_dump(by_alias=True, mode="json"), "registered_at": datetime.now(UTC).isoformat()}
        if self.store.create(self._spec_name(spec.name, spec.version), json.dumps(record, indent=1).encode()):
            return True
        if self.spec(spec.name, spec.version).digest != spec.digest:
            raise UserError(
                f"{spec.dataset_version} is registered with another spec, and a version stays frozen; give the changed spec a new version"
            )
        return False

    def _check(self, spec: DatasetSpec) -> None:
        from mm_embed_kernels.rules import rule_set

        known = modalities()
        for source in spec.sources:
            if source.modality != "auto" and source.modality not in known:
                raise UserError(f"source {source.name}: unknown modality {source.modality!r}; there are: auto, {', '.join(known)}")
            open_source(source, dict(spec.schema_))
        for name in known:
            rule_set(name, spec.curation.rules)
        for name in known:
            key = f"{spec.dataset_version}|{name}"
            if not identity.PARTITION_KEY.fullmatch(spec.dataset_version):
                raise UserError(f"{key}: the partition key must match {identity.PARTITION_KEY.pattern}")

    @staticmethod
    def _spec_name(dataset: str, version: str) -> str:
        return f"registry/datasets/{dataset}/{version}.json"

    def spec(self, dataset: str, version: str) -> DatasetSpec:
        """The frozen spec.

        Raises:
            UserError: when it was never registered; names the versions that are.
        """
        try:
            return _parsed(self.store.read(self._spec_name(dataset, version)))
        except FileNotFoundError:
            known = ", ".join(self.datasets()) or "none"
            raise UserError(f"{dataset}@{version} is not registered; registered are: {known}") from None

    def datasets(self) -> list[str]:
        """All registered ``dataset@version``, sorted."""
        return [
            f"{dataset}@{name.removesuffix('.json')}"
            for dataset in self.store.names("registry/datasets")
            for name in self.store.names(f"registry/datasets/{dataset}")
            if name.endswith(".json")
        ]

    def cells(self, dataset_version: str, modality: str | None = None) -> list[Cell]:
        """The cells that a spec declares (an ``auto`` source may fill any).

        Raises:
            UserError: for an unknown version or a modality that the spec does not declare.
        """
        try:
            dataset, version = split_dataset_version(dataset_version)
        except ValueError as error:
            raise UserError(str(error)) from None
        declared = self.spec(dataset, version).modalities
        names = list(modalities()) if "auto" in declared else declared
        if modality is not None and modality not in names:
            raise UserError(f"{dataset_version} declares no modality {modality!r}; it declares: {', '.join(names)}")
        return [Cell(dataset, version, name) for name in names if modality in (None, name)]

    # -- listings

    def contract(self, spec: DatasetSpec) -> Contract:
        """The listing's contract with the user's columns and the modality that each sample was routed to."""
        fields = [pa.field("modality", pa.string()), pa.field("link", pa.string()), *spec.user_fields]
        return DATASET_REGISTRY.extend(fields, [item.name for item in spec.user_fields if not pa.types.is_floating(item.type)])

    def freeze(self, spec: DatasetSpec, source: SourceSpec) -> str:
        """List a source once for all cells of the version, atomically; "" or why it cannot be listed.

        A source that lists nothing is not frozen, so that it can be listed once it holds something.
        """
        uri = self._listing_uri(spec, source)
        if lance_io.open_dataset(uri) is not None:
            return ""
        schema, causes = self.contract(spec).bare, []

        def rows() -> Iterator[dict[str, Any]]:
            """The listing; remembers what broke it, which Lance's writer would wrap in a traceback."""
            try:
                yield from self._rows(spec, source)
            except (OSError, UserError, SampleError, ImportError) as error:
                causes.append(error)
                raise

        stream = rows()
        try:
            first = next(stream, None)
            if first is None and not source.allow_empty:
                return f"source {source.name} lists nothing at {source.uri}; mend the path or set allow_empty: true"
            lance_io.create(uri, schema, _batches(first, stream, schema))
        except Exception:
            if not causes:
                raise
            return f"source {source.name} cannot be listed: {' '.join(str(causes[0]).split())}"
        return ""

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
            targets = self._frozen(spec, list(spec.sources), schema, "link IS NULL", ["sample_id", "key"])
            with relational.query(_LINKED, listing=rows, targets=targets) as found:
                for batch in found:
                    yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, linked())

    def _frozen(
        self, spec: DatasetSpec, sources: list[SourceSpec], schema: pa.Schema, where: str, columns: list[str] | None = None
    ) -> pa.RecordBatchReader:
        chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])

        def stream() -> Iterator[pa.RecordBatch]:
            for source in sources:
                dataset = lance_io.open_dataset(self._listing_uri(spec, source))
                yield from lance_io.reader(dataset, schema, columns, where)

        return pa.RecordBatchReader.from_batches(chosen, stream())

    def preview(self, spec: DatasetSpec, modality: str) -> pa.RecordBatchReader:
        """The listing as it is frozen, or would be now; freezes nothing.

        Raises:
            OSError, UserError: when a source cannot be listed.
        """
        schema = self.contract(spec).bare

        def stream() -> Iterator[pa.RecordBatch]:
            for source in spec.sources:
                if source.modality not in (modality, "auto"):
                    continue
                dataset = lance_io.open_dataset(self._listing_uri(spec, source))
                if dataset is not None:
                    yield from lance_io.reader(dataset, schema, where=f"modality = '{modality}'")
                else:
                    yield from _batches(None, (row for row in self._rows(spec, source) if row["modality"] == modality), schema)

        return pa.RecordBatchReader.from_batches(schema, stream())

    def _listing_uri(self, spec: DatasetSpec, source: SourceSpec) -> str:
        return self.store.uri(f"registry/listings/{spec.name}/{spec.version}/{source.name}.lance")

    def _rows(self, spec: DatasetSpec, source: SourceSpec) -> Iterator[dict[str, Any]]:
        opened = open_source(source, dict(spec.schema_))
        for item in opened.list():
            modality = source.modality if source.modality != "auto" else _route(opened, item)
            sample = identity.sample_id(spec.name, source.name, item.key)
            yield {
                "sample_id": sample,
                "entity_id": identity.entity_id(spec.name, item.link) if item.link else sample,
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
                **{user_column(name): value for name, value in item.columns.items() if name not in ("label", "transcript")},
            }

    # -- pins

    def pin(self, cell: Cell) -> Pin | None:
        """What is published of a cell, or None."""
        numbers = self._pin_numbers(cell)
        if not numbers:
            return None
        raw = json.loads(self.store.read(self._pin_name(cell, numbers[-1])))
        return Pin(**{**raw, "tables": [PinnedTable(**table) for table in raw["tables"]]})

    def next_pin(self, cell: Cell) -> int:
        """The number that the next pin takes; read it before the work begins, it is the fence."""
        return (self._pin_numbers(cell) or [0])[-1] + 1

    def publish(self, cell: Cell, pin: Pin) -> None:
        """Move the pin: one atomic, exclusive creation.

        Raises:
            Fenced: when another run published since `next_pin`.
        """
        if not self.store.create(self._pin_name(cell, pin.number), json.dumps(asdict(pin), indent=1).encode()):
            raise lance_io.Fenced(f"{cell.partition_key} was published by another run since this one began; its pin stays")

    def _pin_name(self, cell: Cell, number: int) -> str:
        return f"registry/pins/{cell.path}/{number:08d}.json"

    def _pin_numbers(self, cell: Cell) -> list[int]:
        return [int(found[1]) for name in self.store.names(f"registry/pins/{cell.path}") if (found := _PIN.match(name))]


def declares_links(source: SourceSpec) -> bool:
    return bool((source.record and source.record.link) or (source.table and "link" in source.table.columns))


@lru_cache(maxsize=64)
def _parsed(raw: bytes) -> DatasetSpec:
    return parse_spec(json.dumps(json.loads(raw)["spec"]), "registry")


def _route(source: Source, item: Listed) -> str:
    """The modality of a sample of an ``auto`` source, by content; what nothing claims goes to the first modality,
    where its probe names what it is."""
    if item.error is None:
        try:
            data = source.fetch(item.uri, item.locator)
            head = data[:HEAD_BYTES] if isinstance(data, bytes) else data.read(HEAD_BYTES)
            if not isinstance(data, bytes):
                data.close()
            found = modality_of(sniff(head))
            if found:
                return found
        except SampleError as error:
            item.error = error
    return next(iter(modalities()))


def _batches(first: dict[str, Any] | None, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    held = [] if first is None else [first]
    for row in rows:
        held.append(row)
        if len(held) >= LISTING_BATCH:
            yield pa.RecordBatch.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema)
