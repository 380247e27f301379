"""The feature store: LanceDB tables behind pins. Needs no Dagster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.embedders import Embedder, create, embedders
from mm_embed_kernels.embedders.base import slug_of
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.isolated import release
from mm_embed_kernels.kernel import embed_each
from mm_embed_kernels.modalities import Media, Segment, modalities, modality_of
from mm_embed_kernels.modalities.tracks import media_type
from mm_embed_kernels.relational import RowDigest
from mm_embed_kernels.sandbox import guarded
from mm_resources import lance_io
from mm_resources.object_store import lance_options
from mm_resources.registry import Pin, PinnedTable, Registry
from mm_resources.settings import Settings, absolute
from mm_resources.store import Cell, Store

if TYPE_CHECKING:
    import lance
    import lancedb
    from lancedb.table import Table

    from mm_resources.training import TrainingSet

# Below this many rows an exact search takes milliseconds and has recall 1.
EXACT_ROWS = 50_000
# Up to this many rows the index is a graph (HNSW), the fastest to search; to build it, its codes and edges lie in memory. Above,
# it is inverted lists alone, built in seconds out of memory that does not follow the table.
GRAPH_ROWS = 250_000
PARTITION_ROWS = 50_000
# Index type -> lists that a query looks into, before what it finds is ranked by the vectors themselves.
PROBES = {"IVF_HNSW_SQ": 64, "IVF_SQ": 128}
REFINED = 10
# How many segments of a medium stand for it in a query.
QUERY_SEGMENTS = 8
HIT = ["feature_id", "sample_id", "segment_id", "entity_id", "content_hash", "source_uri", "modality", "label", "split", "span"]
Query = str | bytes | Path | list[float] | np.ndarray[Any, Any]


class FeatureStore:
    """Published features: search, training sets, decisions, explanations."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = Registry(store)
        self._embedders: dict[str, Embedder] = {}

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None) -> FeatureStore:
        """The feature store of a store's root, by default of ``MM_STORE``."""
        return FeatureStore(Store(absolute(os.fspath(root)) if root is not None else Settings.from_environment().store))

    # -- reading

    def search(
        self,
        query: Query,
        *,
        dataset_version: str,
        modality: str,
        embedder: str | None = None,
        k: int = 10,
        where: str | None = None,
    ) -> pa.Table:
        """The nearest features, best first, of the published version.

        Args:
            query: text, a media path or bytes, a vector, or ``id:`` and a feature, segment or sample id.
            embedder: name of the embedder whose table is searched; the primary one by default.
            where: SQL over the feature columns, applied before the search.

        Returns:
            The columns of a hit, ``key``, ``text``, ``dataset_version`` and ``score`` (cosine similarity).

        Raises:
            UserError: when nothing is published, the query fits no space of the table, or the filter is wrong.
        """
        pin = self.published(dataset_version, modality)
        pinned = pin.table(embedder)
        table = self.table(pinned)
        vector = self._vector(query, pinned, table)
        request = (
            table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k).select([*HIT, "key", "text", "_distance"])
        )
        if pinned.index in PROBES:
            request = request.nprobes(PROBES[pinned.index]).refine_factor(REFINED)
        if where:
            request = request.where(where, prefilter=True)
        try:
            found = request.to_arrow()
        except (ValueError, RuntimeError, OSError) as error:
            if where:
                raise UserError(f"the filter {where!r} does not work: {' '.join(str(error).split())[:300]}") from error
            raise
        score = pa.array([1.0 - distance for distance in found["_distance"].to_pylist()], pa.float64())
        version = pa.array([dataset_version] * found.num_rows, pa.string())
        return found.drop(["_distance"]).append_column("score", score).append_column("dataset_version", version)

    def training_set(
        self,
        dataset_version: str | None = None,
        *,
        modality: str | list[str] | None = None,
        where: str | None = None,
        split: str | None = None,
        columns: list[str] | None = None,
        embedder: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> TrainingSet:
        """A pinned set of features; several modalities are joined on ``entity_id``.

        Args:
            manifest: of an earlier training set, instead of everything else: the same rows again.
        """
        from mm_resources.training import TrainingSet

        if manifest is not None:
            return TrainingSet.from_manifest(self, manifest)
        if dataset_version is None or modality is None:
            raise UserError("training_set needs a dataset version and a modality, or a manifest")
        names = [modality] if isinstance(modality, str) else modality
        pins = [self.published(dataset_version, name) for name in names]
        return TrainingSet.pinned(self, pins, embedder, where, split, columns or ["label"])

    def decisions(self, dataset_version: str, modality: str) -> pa.Table:
        """Every curated sample's decision as published (before the first publish: as curated): kept, rules, split."""
        from mm_resources.tables import StageTables

        cell = self.registry.cells(dataset_version, modality)[0]
        pin = self.registry.pin(cell)
        version = pin.stages["curated_samples"]["lance_version"] if pin else None
        columns = ["sample_id", "key", "kept", "rule", "reason", "rules", "duplicate_group", "duplicates", "split_group", "split"]
        try:
            return StageTables(self.store).read("curated_samples", cell, columns, version=version).read_all()
        except LookupError as error:
            raise UserError(f"{error}; run `mm backfill {dataset_version}`") from None

    def explain(self, identifier: str, dataset_version: str | None = None) -> dict[str, Any]:
        """Where a feature (or segment, or sample) came from: the whole chain. See `mm_resources.explain`."""
        from mm_resources.explain import explain

        return explain(self, identifier, dataset_version)

    def published(self, dataset_version: str, modality: str) -> Pin:
        """The pin of a cell.

        Raises:
            UserError: when nothing is published of it.
        """
        cell = self.registry.cells(dataset_version, modality)[0]
        pin = self.registry.pin(cell)
        if pin is None:
            raise UserError(f"nothing is published of {dataset_version} {modality}; run `mm backfill {dataset_version}`")
        return pin

    def table(self, pinned: PinnedTable) -> Table:
        """A pinned table at its version."""
        table = self.database.open_table(pinned.table)
        table.checkout(pinned.lance_version)
        return table

    def dataset(self, table: str, version: int) -> lance.LanceDataset:
        """A feature table at a version as a Lance dataset, for scans.

        Raises:
            UserError: when the store does not hold it.
        """
        found = lance_io.open_dataset(self._uri(table), version)
        if found is None:
            raise UserError(f"table {table} is not in this store")
        return found

    def has(self, table: str, version: int) -> bool:
        """Whether the store holds a feature table at a version."""
        return lance_io.open_dataset(self._uri(table), version) is not None

    def _uri(self, table: str) -> str:
        return self.store.uri(f"features/{table}.lance")

    @cached_property
    def database(self) -> lancedb.DBConnection:
        import lancedb

        if self.store.is_local:
            os.makedirs(self.store.path("features"), exist_ok=True)
        uri = self.store.uri("features")
        return lancedb.connect(uri, storage_options=lance_options(uri))

    # -- queries

    def embedder(self, pinned: PinnedTable) -> Embedder:
        """The embedder that made a table.

        Raises:
            UserError: when the installed weights are not those of the table.
        """
        if pinned.embedder not in self._embedders:
            made = create(pinned.embedder)
            if made.space != pinned.space:
                raise UserError(
                    f"table {pinned.table} lies in the space {pinned.space}, but the installed {pinned.embedder} makes {made.space}; "
                    "install the weights that made it, or query by id"
                )
            self._embedders[pinned.embedder] = made
        return self._embedders[pinned.embedder]

    def _vector(self, query: Query, pinned: PinnedTable, table: Table) -> np.ndarray[Any, Any]:
        if isinstance(query, (np.ndarray, list)):
            vector = np.asarray(query, dtype=np.float32).reshape(-1)
            if len(vector) != pinned.dimension:
                raise UserError(f"the query has {len(vector)} dimensions, the table {pinned.dimension} ({pinned.space})")
            return vector
        if isinstance(query, str) and query.startswith("id:"):
            return _stored_vector(query.removeprefix("id:"), table)
        if isinstance(query, str) and not os.path.isfile(query):
            if not query.strip():
                raise UserError("the query is empty")
            return np.asarray(self.embedder(pinned).embed_text([query])[0])
        return self._media_vector(query if isinstance(query, bytes) else Path(query), pinned)

    def _media_vector(self, data: Media, pinned: PinnedTable) -> np.ndarray[Any, Any]:
        """The mean vector of a medium's segments; of a long one, of some that are spread evenly."""
        mime = media_type(data)
        modality = modality_of(mime)
        if modality is None:
            raise UserError(f"the query is {mime}, which no modality reads")
        embedder, reader = self._for_media(modality, pinned), modalities()[modality]
        try:
            if isinstance(data, Path) and not reader.streams:
                data = data.read_bytes()
            segments = cast(Any, reader).segment(data)
            places = sorted({round(i * (len(segments) - 1) / (QUERY_SEGMENTS - 1)) for i in range(QUERY_SEGMENTS)}) if segments else []
            vectors, refused = _vectors(embedder, data, [segments[i] for i in places])
        except SampleError as error:
            raise UserError(f"the query cannot be read: {error}") from error
        if not vectors:
            raise UserError(f"the query is {modality} with nothing in it to embed{f': {refused[0]}' if refused else ''}")
        return np.asarray(np.mean(vectors, axis=0))

    def _for_media(self, modality: str, pinned: PinnedTable) -> Embedder:
        """An embedder that reads `modality` and makes vectors in the table's space."""
        own = self.embedder(pinned)
        if own.modality == modality:
            return own
        for name, kind in embedders().items():
            if kind.modality == modality and kind.takes_model == bool(own.model):
                whole = f"{name}:{own.model}" if own.model else name
                candidate = self._embedders.setdefault(whole, create(whole))
                if _shares_space(candidate, pinned):
                    return candidate
        raise UserError(
            f"no embedder brings {modality} into the space {pinned.space} of the table; query it with text, {own.modality} or an id"
        )

    # -- building (called by the assets)

    def write_candidate(self, name: str, contract: Contract, batches: Iterable[pa.Table]) -> tuple[int, int, str, str]:
        """Write and index a candidate table; (Lance version, rows, index, digest). No reader sees it before a pin.

        Raises:
            Fenced: when another run wrote the same candidate meanwhile.
        """
        uri = self._uri(name)
        read_version = lance_io.fence(uri, contract.bare)
        digest = RowDigest(tuple(item.name for item in contract.schema if item.name in _DIGESTED or item.name.startswith("user__")))

        def counted() -> Iterator[pa.Table]:
            for batch in batches:
                cast = contract.cast(batch)
                digest.update(cast)
                yield cast

        version = lance_io.overwrite(uri, contract.bare, lance_io.rows_of(counted()), read_version, f"candidate {name}")
        index = _index_for(digest.rows)
        if index != "exact":
            version = self._index(name, version, index)
        return version, digest.rows, index, digest.hexdigest()

    def _index(self, name: str, version: int, index: str) -> int:
        """Index what `version` holds; the version that holds the index too.

        Raises:
            Fenced: when another run wrote the table since.
        """
        from lancedb.index import HnswSq, IvfSq

        release()
        fenced = lance_io.Fenced(f"{name} was rewritten by another run before it was indexed")
        table = self.database.open_table(name)
        if table.version != version:
            raise fenced
        graph = HnswSq(distance_type="cosine", target_partition_size=PARTITION_ROWS)
        try:
            table.create_index("vector", config=graph if index == "IVF_HNSW_SQ" else IvfSq(distance_type="cosine"))
        except RuntimeError as error:
            if "Incompatible transaction" not in str(error):
                raise
            raise fenced from None
        return int(table.version)

    def tag(self, name: str, version: int, tag: str) -> None:
        """Keep a table's version for as long as the tag exists."""
        tags = self.database.open_table(name).tags
        if tag not in tags.list():
            tags.create(tag, version)

    def recall(self, name: str, version: int, index: str, queries: int = 100, k: int = 10) -> float:
        """recall@k of the table's index against exact search, with the table's own vectors as queries (seeded)."""
        table = self.database.open_table(name)
        table.checkout(version)
        rows = table.count_rows()
        if rows == 0:
            return 1.0
        chosen = np.random.default_rng(0).choice(rows, size=min(queries, rows), replace=False)
        vectors = self.dataset(name, version).take(sorted(chosen.tolist()), columns=["vector"])["vector"].combine_chunks()
        found = hits = 0
        for vector in vectors.flatten().to_numpy().reshape(len(chosen), -1):
            asked = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k).select(["feature_id", "_distance"])
            exact = set(asked.bypass_vector_index().to_arrow()["feature_id"].to_pylist())
            again = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k).select(["feature_id", "_distance"])
            if index in PROBES:
                again = again.nprobes(PROBES[index]).refine_factor(REFINED)
            near = set(again.to_arrow()["feature_id"].to_pylist())
            found, hits = found + len(exact), hits + len(exact & near)
        return hits / found


_DIGESTED = {"feature_id", "sample_id", "entity_id", "content_hash", "label", "split", "passed", "duplicate_group", "partial", "text"}


def _index_for(rows: int) -> str:
    """The kind of search that a table of so many rows gets."""
    if rows < EXACT_ROWS:
        return "exact"
    return "IVF_HNSW_SQ" if rows <= GRAPH_ROWS else "IVF_SQ"


def table_name(cell: Cell, embedder: str) -> str:
    """LanceDB table of a cell and embedder."""
    return f"{cell.dataset}.{cell.version}.{cell.modality}.{slug_of(embedder)}"


def _vectors(embedder: Embedder, data: Media, segments: list[Segment]) -> tuple[list[np.ndarray[Any, Any]], list[SampleError]]:
    """Unit vectors of segments, and why some have none (silence, say)."""
    inputs: list[Any] = [segment.text or "" for segment in segments]
    if embedder.input_shape is not None:
        inputs = [guarded(embedder.decode, (data, segment.span)) for segment in segments]
    refused = [item for item in inputs if isinstance(item, SampleError)]
    good = [item for item in inputs if not isinstance(item, SampleError)]
    outcomes = embed_each(embedder, good if embedder.input_shape is None else np.stack(good)) if good else []
    refused += [item for item in outcomes if isinstance(item, SampleError)]
    return [item for item in outcomes if not isinstance(item, SampleError)], refused


def _shares_space(candidate: Embedder, pinned: PinnedTable) -> bool:
    """Whether an embedder's vectors can be compared with a table's; one of another kind may not read the model at all."""
    try:
        return candidate.space == pinned.space
    except UserError:
        return False


def _stored_vector(identifier: str, table: Table) -> np.ndarray[Any, Any]:
    if not identifier.isalnum():
        raise UserError(f"{identifier!r} is not an id")
    where = " OR ".join(f"{column} = '{identifier}'" for column in ("feature_id", "segment_id", "sample_id"))
    found = table.search().where(where).select(["vector"]).limit(1).to_arrow()
    if found.num_rows == 0:
        raise UserError(f"{table.name} has no feature, segment or sample {identifier}")
    return np.asarray(found["vector"][0].as_py(), dtype=np.float32)
