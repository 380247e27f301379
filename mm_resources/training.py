"""Training sets: pinned, filtered, joined features, and the loaders over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import relational
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.relational import RowDigest
from mm_resources.registry import Pin

if TYPE_CHECKING:
    from mm_resources.features import FeatureStore

_TAKE_ROWS = 8_192


class TrainingSet:
    """Rows of one or several pinned tables. `manifest` is JSON and brings the same rows back.

    With one modality a row has ``feature_id``, ``sample_id``, ``entity_id``, ``vector`` and the chosen columns. With
    several, the modalities are joined on ``entity_id`` and each column but that is prefixed, e.g. ``image__vector``.
    """

    def __init__(self, features: FeatureStore, manifest: dict[str, Any]) -> None:
        self.features = features
        self.manifest = manifest

    @staticmethod
    def pinned(
        features: FeatureStore, pins: list[Pin], embedder: str | None, where: str | None, split: str | None, columns: list[str]
    ) -> TrainingSet:
        conditions = [f"({where})"] if where else []
        if split:
            conditions.append(f"split = {relational.literal(split)}")
        tables = []
        for pin in pins:
            table = pin.table(embedder if len(pins) == 1 else None)
            tables.append(
                {
                    "modality": pin.modality,
                    "pin": pin.number,
                    "table": table.table,
                    "lance_version": table.lance_version,
                    "tag": table.tag,
                    "fingerprint": table.fingerprint,
                    "dimension": table.dimension,
                }
            )
        manifest: dict[str, Any] = {
            "dataset_version": f"{pins[0].dataset}@{pins[0].version}",
            "tables": tables,
            "where": " AND ".join(conditions) or None,
            "columns": columns,
        }
        found = TrainingSet(features, manifest)
        manifest["rows"], manifest["digest"] = found._measure()
        return found

    @staticmethod
    def from_manifest(features: FeatureStore, manifest: dict[str, Any]) -> TrainingSet:
        """Raises UserError when the store no longer gives the rows of the manifest."""
        found = TrainingSet(features, manifest)
        if found._measure() != (manifest["rows"], manifest["digest"]):
            raise UserError("the store no longer holds the rows of this manifest")
        return found

    def _measure(self) -> tuple[int, str]:
        digest = RowDigest(tuple(name for name in self._names() if not name.endswith("vector")))
        for batch in self._stream(with_vectors=False):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def _names(self) -> list[str]:
        own = list(dict.fromkeys(["feature_id", "sample_id", "vector", *self.manifest["columns"]]))
        if len(self.manifest["tables"]) == 1:
            return ["entity_id", *own]
        return ["entity_id", *(f"{table['modality']}__{name}" for table in self.manifest["tables"] for name in own)]

    def _scan(self, table: dict[str, Any], columns: list[str]) -> pa.RecordBatchReader:
        dataset = self.features.dataset(table["table"], table["lance_version"])
        lacking = [name for name in columns if name not in dataset.schema.names]
        if lacking:
            raise UserError(f"{table['table']} has no column {lacking[0]!r}; it has: {', '.join(dataset.schema.names)}")
        try:
            found: pa.RecordBatchReader = dataset.scanner(columns=columns, filter=self.manifest["where"]).to_reader()
        except (ValueError, OSError) as error:
            raise UserError(f"the filter {self.manifest['where']!r} does not work: {' '.join(str(error).split())[:300]}") from error
        return found

    def _stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        base = ["feature_id", "sample_id", *(["vector"] if with_vectors else []), *self.manifest["columns"]]
        columns = list(dict.fromkeys(["entity_id", *base]))
        tables = self.manifest["tables"]
        if len(tables) == 1:
            yield from self._scan(tables[0], columns)
            return
        streams = {f"t{i}": self._scan(table, columns) for i, table in enumerate(tables)}
        chosen = [
            f't{i}."{name}" AS "{table["modality"]}__{name}"' for i, table in enumerate(tables) for name in columns if name != "entity_id"
        ]
        joins = " ".join(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))
        with relational.query(f"SELECT entity_id, {', '.join(chosen)} FROM t0 {joins}", **streams) as reader:
            yield from reader

    def to_arrow(self) -> pa.Table:
        """All rows at once."""
        batches = list(self._stream(with_vectors=True))
        if not batches:
            return pa.table({name: [] for name in self._names()})
        return pa.Table.from_batches(batches).select(self._names())

    def to_torch(self, batch_size: int = 256, shuffle: bool = False, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Batches as dicts: vectors as float32 tensors, numbers as tensors, everything else as lists.

        Rows are read in batches from disk; with `shuffle`, in an order that `seed` alone decides.
        """
        import torch

        for table in self._batches(batch_size, shuffle, seed):
            batch: dict[str, Any] = {}
            for name in self._names():
                column = table[name].combine_chunks()
                if pa.types.is_fixed_size_list(column.type):
                    batch[name] = torch.tensor(column.flatten().to_numpy().reshape(len(column), -1))
                elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                    batch[name] = torch.tensor(column.to_numpy(zero_copy_only=False))
                else:
                    batch[name] = column.to_pylist()
            yield batch

    def _batches(self, batch_size: int, shuffle: bool, seed: int) -> Iterator[pa.Table]:
        if len(self.manifest["tables"]) > 1:
            # A join keeps no order of its own, and the seed alone must decide.
            table = self.to_arrow().sort_by([(name, "ascending") for name in self._names() if name.endswith("__feature_id")])
            order = np.random.default_rng(seed).permutation(table.num_rows) if shuffle else np.arange(table.num_rows)
            for start in range(0, table.num_rows, batch_size):
                yield table.take(order[start : start + batch_size])
            return
        table = self.manifest["tables"][0]
        dataset = self.features.dataset(table["table"], table["lance_version"])
        columns = self._names()
        rows = dataset.scanner(columns=[], with_row_id=True, filter=self.manifest["where"]).to_table()["_rowid"].to_numpy()
        order = np.sort(rows)
        if shuffle:
            order = np.random.default_rng(seed).permutation(order)
        step = max(1, _TAKE_ROWS // batch_size) * batch_size
        for start in range(0, len(order), step):
            block = dataset._take_rows(order[start : start + step].tolist(), columns=columns)
            for offset in range(0, block.num_rows, batch_size):
                yield block.slice(offset, batch_size)
