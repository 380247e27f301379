"""A vector for each sample of a published table: of several segments, the direction of their mean."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.filters import filter_errors, join_conditions, row_errors
from mm_resources.storage import lance_datasets

_BLOCK_ROWS = 16_384


class SampleVectors:
    """The samples behind a pin's primary table, numbered from 0; their vectors are streamed.

    Ids and labels are in memory, about 100 bytes for each row of the table.

    Args:
        where: SQL over the feature columns.

    Attributes:
        ids: of the samples, bytes [n].
        labels: of the samples, object [n]; "" for none.

    Raises:
        UserError: for a filter that is none.
    """

    def __init__(self, catalog: Catalog, pin: Pin, where: str | None = None) -> None:
        self._catalog, self._pin, self._where = catalog, pin, join_conditions(where)
        ids, labels = [np.zeros(0, "S32")], [np.zeros(0, object)]
        for batch in self._read(["sample_id", "label"]):
            ids.append(np.asarray(batch["sample_id"].to_pylist(), "S32"))
            labels.append(np.asarray([label or "" for label in batch["label"].to_pylist()], object))
        self.ids, first, self._numbers = np.unique(
            np.concatenate(ids), return_index=True, return_inverse=True
        )
        self.labels = np.concatenate(labels)[first]

    def _read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        features, primary = self._catalog.features, self._pin.primary
        dataset = features.dataset(primary.table, primary.lance_version)
        with filter_errors(self._where, lambda: dataset.schema.names):
            rows = lance_datasets.reader(dataset, dataset.schema, columns, self._where)
        with row_errors(self._where):
            yield from rows

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Stream numbers of samples, int64 [n], and their unit vectors, float32 [n, d]; each sample once."""
        if len(self._numbers) > len(self.ids):
            yield from self._means()
            return
        place = 0
        for batch in self._read(["vector"]):
            vectors = vectors_of(pa.Table.from_batches([batch]))
            yield self._numbers[place : place + len(vectors)], vectors
            place += len(vectors)

    def _means(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Stream the means of segments, summed up in a file: those of a sample need not be together."""
        shape = (len(self.ids), self._pin.primary.dimension)
        with tempfile.TemporaryDirectory(prefix="mm-vectors-") as folder:
            sums = np.memmap(Path(folder) / "sums", np.float32, "w+", shape=shape)
            place = 0
            for batch in self._read(["vector"]):
                vectors = vectors_of(pa.Table.from_batches([batch]))
                np.add.at(sums, self._numbers[place : place + len(vectors)], vectors)
                place += len(vectors)
            for start in range(0, len(sums), _BLOCK_ROWS):
                part = np.asarray(sums[start : start + _BLOCK_ROWS])
                norms = np.linalg.norm(part, axis=1, keepdims=True)
                yield np.arange(start, start + len(part)), part / np.maximum(norms, 1e-12)
