"""Rows of a training set as tables and frames of other libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.extras import explain_missing
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.arguments import require_flag, require_number
from mm_resources.retrieval.manifests import Manifest, Rows, parts_of
from mm_resources.retrieval.mixture_rows import DrawnReader, MixtureRows
from mm_resources.retrieval.ray_rows import read_on_ray
from mm_resources.retrieval.training_rows import RowReader

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import ray.data


class RowConversions(ABC):
    """The rows of a training set by number, and their conversions."""

    catalog: Catalog
    _manifest: Manifest
    _rows: Rows

    @property
    def published_at(self) -> str:
        """Time of publication of the latest of its tables, ISO 8601."""
        pins = []
        for part in parts_of(self._manifest):
            dataset, version = part["dataset_version"].split("@")
            pins += [
                self.catalog.registry.pins.get(Cell(dataset, version, table["modality"]), table["pin"])
                for table in part["tables"]
            ]
        return max(pin.published_at for pin in pins if pin)

    def schema(self) -> pa.Schema:
        """Return the columns, in order, with their types."""
        return self._rows.schema()

    def media_kinds(self) -> dict[str, str]:
        """Return the columns of media that `reader` can give, with the modality of each."""
        return self._rows.media_kinds()

    def reader(self, media: bool = False) -> RowReader | DrawnReader:
        """Return a reader of the rows by number, with the locations of their media where asked."""
        return self._rows.reader(media)

    @abstractmethod
    def stream(self) -> Iterator[pa.RecordBatch]:
        """Stream all rows."""

    def to_arrow(self) -> pa.Table:
        """Read all rows into memory; without rows, an empty table of the same columns and types."""
        batches = list(self.stream())
        return pa.Table.from_batches(batches) if batches else self._rows.schema().empty_table()

    def to_polars(self) -> pl.DataFrame:
        """Read all rows into memory, as a Polars frame."""
        with explain_missing("TrainingSet.to_polars"):
            import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """Return the rows as a relation of DuckDB: ``ts.to_duckdb().aggregate("label, count(*)")``.

        Args:
            connection: of DuckDB; by default its own of the process.
        """
        return sql.relation(self.to_arrow(), connection)

    def to_ray(self, media: bool = False, blocks: int = 0) -> ray.data.Dataset:
        """Return a Ray dataset that reads the rows on its workers.

        Vectors are tensors, float32 [n, dimension]; all other columns have their Arrow types (lists are
        lists, times are in UTC, integers may be null); media are binary. The workers open the store by its
        root: on a cluster that is a URL or a folder that all nodes mount. Connect Ray before (``ray.init``);
        otherwise Ray starts with all of the machine.

        A mixture is mixed by Ray (`ray.data.Dataset.mix`), block by block, in the shares of its weights; all
        rows of epoch 0 come.

        Args:
            media: as for `to_torch`; the bytes are read on the workers.
            blocks: number of blocks that are read separately; by default one for some sixteen thousand rows,
                of a mixture for a thousand.

        Raises:
            UserError: for an argument out of its range.
        """
        require_flag("media", media)
        require_number("blocks", blocks, 0)
        rows = self._rows
        parts = rows.part_readers(media) if isinstance(rows, MixtureRows) else [rows.reader(media)]
        return read_on_ray(parts, media, blocks)
