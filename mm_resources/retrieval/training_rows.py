"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.blobs.blob_index import INDEX
from mm_resources.catalog import Catalog
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import lance


# How many rows' media lie in memory at once in a task of Ray's.
MEDIA_ROWS = 256


class Rows:
    """Rows of a training set by their numbers; picklable, each process opens the tables for itself.

    Attributes:
        places: per table, the Lance row id of each row, uint64 [rows].
        located: per table, URI and version of the stage that says where blobs lie; empty where no media are wanted. Then
            each row has its blob's place as ``media``.
    """

    def __init__(
        self,
        catalog: Catalog,
        tables: list[dict[str, Any]],
        columns: list[str],
        places: list[np.ndarray[Any, Any]],
        located: list[tuple[str, int]] = [],  # noqa: B006 - never changed
    ) -> None:
        self.catalog, self.tables, self.places, self.located = catalog, tables, places, located
        more = ["content_hash", "span"] if located else []
        self.columns = list(dict.fromkeys(["feature_id", "sample_id", "vector", *columns, *more]))
        self._opened: list[lance.LanceDataset] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": []}

    def __call__(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        """The rows, in the order of `numbers`."""
        if not self._opened:
            features = self.catalog.features
            self._opened = [features.dataset(table["table"], table["lance_version"]) for table in self.tables]
        found: dict[str, pa.ChunkedArray] = {}
        for place, (dataset, table) in enumerate(zip(self._opened, self.tables, strict=True)):
            lead = f"{table['modality']}__" if len(self.tables) > 1 else ""
            columns = (
                self.columns
                if place
                else ["entity_id", *(name for name in self.columns if name != "entity_id")]
            )
            rows = dataset._take_rows(self.places[place][numbers].tolist(), columns=columns)
            found |= {
                name if name == "entity_id" else f"{lead}{name}": rows[name]
                for name in columns
                if name not in found
            }
            if self.located:
                found[f"{lead}media"] = places_of(rows["content_hash"], *self.located[place])
        return pa.table(found)


def places_of(hashes: pa.ChunkedArray, uri: str, version: int) -> pa.StructArray:
    """Where the blobs of `hashes` lie, in their order; one scan for a window of rows, of which the wanted ones alone are held."""
    wanted = pc.unique(hashes)
    stage = lance_datasets.reader(lance_datasets.open_dataset(uri, version), INDEX, INDEX.names)
    found = pa.Table.from_batches(
        [batch.filter(pc.is_in(batch["content_hash"], wanted)) for batch in stage], INDEX
    ).combine_chunks()
    places = pc.index_in(hashes.combine_chunks(), found["content_hash"].combine_chunks())
    return found.to_struct_array().combine_chunks().take(places)


class BlockReader:
    """A piece of a training set as Ray's workers read it."""

    def __init__(self, rows: Rows, media: bool) -> None:
        self.rows, self.media = rows, media

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        table, blobs = self.rows(batch["id"]), self.rows.catalog.blobs
        found: dict[str, Any] = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            if self.media and is_media(name):
                found[name] = np.array([blobs.read(**place) for place in column.to_pylist()], dtype=object)
            elif pa.types.is_fixed_size_list(column.type):
                found[name] = vectors_of(column)
            else:
                found[name] = column.to_numpy(zero_copy_only=False)
        return found


def is_media(name: str) -> bool:
    """Whether a column holds the places of blobs, or their bytes."""
    return name == "media" or name.endswith("__media")
