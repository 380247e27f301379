"""Tables of rows in columns: Parquet, and the base of what reads rows in batches; a record's locator is its row's number."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.records import Record, RecordFile

# What a batch of rows may hold, and of how many rows; a single one may be larger.
_BATCH_BYTES, _BATCH_ROWS = 16 << 20, 1_024

# (number of the first row, batch), in order.
Batches = Iterator[tuple[int, pa.RecordBatch]]


class RowFile(RecordFile):
    """Base of the kinds whose rows come in Arrow batches; it reads forward, and again from where a row's group begins."""

    @abstractmethod
    def batches(
        self, uri: str, columns: list[str] | None, row: int | None = None, version: str = ""
    ) -> Batches:
        """The whole table in batches, or the group of rows that holds `row`.

        Args:
            columns: of the table's; None for all.
            version: as `version` gave it when the table was listed.
        """

    @abstractmethod
    def columns(self, uri: str) -> pa.Schema:
        """The schema of a table."""

    def version(self, uri: str) -> str:
        """What of the table a locator has to name beside the row; "" where a table is one file."""
        return ""

    def records(self, uri: str) -> Iterator[Record]:
        try:
            schema, label = self.columns(uri), self.mapping.label
            columns, lazy = self._listed_columns(schema.names)
            version, classes = self.version(uri), _class_names(schema, label)
            for first, batch in self.batches(uri, columns, version=version):
                for i, fields in enumerate(_rows(batch)):
                    if label and classes and (number := fields.get(label)) is not None:
                        fields[label] = classes[number] if 0 <= number < len(classes) else None
                    yield Record(f"{first + i}@{version}" if version else str(first + i), fields, lazy=lazy)
        except (pa.ArrowInvalid, OSError) as error:
            # pyarrow raises OSError for damage as well; one of the operating system or network has a number.
            if getattr(error, "errno", None) is not None:
                raise
            raise UserError(f"{uri} cannot be read as {self.name}: {' '.join(str(error).split())}") from error

    def _listed_columns(self, names: list[str]) -> tuple[list[str] | None, bool]:
        """The columns that a listing reads, and whether it leaves the content out: bytes are large, and a key makes their hash needless."""
        mapping = self.mapping
        if mapping.bytes is None or mapping.bytes not in names:
            return None, False
        lazy = mapping.id is not None and mapping.id in names
        wanted = {
            mapping.id,
            mapping.label,
            mapping.link,
            mapping.group,
            *self.schema,
            *(() if lazy else (mapping.bytes,)),
        }
        return [name for name in names if name in wanted], lazy

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        number, _, version = locator.partition("@")
        row, held = int(number), self._held
        if held is None or held.place != (uri, version) or row < held.first:
            held = self._begin(uri, version, row)
        while row >= held.first + held.batch.num_rows:
            found = next(held.batches, None)
            if found is not None:
                held.first, held.batch = found
            elif held.asked == row:
                raise SampleError("source_changed", f"{uri} was listed with a row {row} and has none now")
            else:
                held = self._begin(uri, version, row)
        fields: dict[str, Any] = held.batch.slice(row - held.first, 1).to_pylist()[0]
        return fields

    def _begin(self, uri: str, version: str, row: int) -> _Held:
        columns = [name for name in self.columns(uri).names if name == self.mapping.content]
        self._held = _Held((uri, version), row, self.batches(uri, columns, row, version))
        return self._held

    _held: _Held | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_held"}


class ParquetRows(RowFile):
    """Rows of a Parquet file, read again by row groups."""

    name = "parquet"
    endings = (".parquet",)

    def columns(self, uri: str) -> pa.Schema:
        return parquet_schema(self.opener, uri)

    def batches(
        self, uri: str, columns: list[str] | None, row: int | None = None, version: str = ""
    ) -> Batches:
        return parquet_batches(self.opener, uri, columns, row)


@dataclass
class _Held:
    """Where a reader stands: in the batch that begins with row `first`, on behalf of row `asked`."""

    place: tuple[str, str]
    asked: int
    batches: Batches
    first: int = 0
    batch: pa.RecordBatch = field(
        default_factory=lambda: pa.RecordBatch.from_pylist([], schema=pa.schema([]))
    )


def parquet_schema(opener: ObjectOpener, uri: str) -> pa.Schema:
    """The schema of a Parquet file."""
    import pyarrow.parquet as parquet

    with opener.open(uri) as stream:
        return parquet.read_schema(stream)


def parquet_batches(opener: ObjectOpener, uri: str, columns: list[str] | None, row: int | None) -> Batches:
    """See `RowFile.batches`; the groups are the file's own."""
    import pyarrow.parquet as parquet

    first = 0
    with opener.open(uri) as stream:
        # Buffered: otherwise the chunk of a column is read as a whole, which may be all pictures of a shard.
        file = parquet.ParquetFile(stream, buffer_size=1 << 20)
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if row is None or first <= row < first + about.num_rows:
                size = batch_rows(about.total_byte_size, about.num_rows)
                at = first
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=columns):
                    yield at, batch
                    at += batch.num_rows
            first += about.num_rows


def batch_rows(size: int, rows: int) -> int:
    """How many rows of a table of so many bytes are held at once."""
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """A batch's rows as Python objects, few at once where they are large."""
    step = batch_rows(batch.nbytes, batch.num_rows)
    for start in range(0, batch.num_rows, step):
        yield from batch.slice(start, step).to_pylist()


def _class_names(schema: pa.Schema, column: str | None) -> list[str]:
    """The names behind the numbers of a Hugging Face `ClassLabel`, which its schema carries along."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []
