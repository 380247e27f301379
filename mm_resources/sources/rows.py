"""Tables of rows in columns: Parquet, and the base of kinds that read batches; a locator is a row number."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.messages import message_line
from mm_resources.objects.compressed_streams import BOMB_BYTES, BOMB_RATIO
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.records import Record, RecordFile
from mm_resources.storage.filesystems import is_local

# Limits of a batch of rows; a single row may be larger.
_BATCH_BYTES, _BATCH_ROWS = 16 << 20, 1_024
_NAT = -(2**63)
# Values of one row and column of a Parquet file, of which a few bytes can repeat one without end.
_MOST_ROW_VALUES = 1 << 24
# Columns of which a batch could repeat one value of the dictionary so often are read as dictionaries.
_REPEATED_BYTES = 256 << 20
# (number of the first row, batch), in order.
Batches = Iterator[tuple[int, pa.RecordBatch]]


class RowFile(RecordFile):
    """Base of the kinds whose rows come in Arrow batches, read forward or from the start of a row's group."""

    _cursor: _Cursor | None = None

    @abstractmethod
    def batches(
        self, uri: str, columns: list[str] | None, row: int | None = None, version: str = ""
    ) -> Batches:
        """Yield the whole table in batches, or the group of rows that holds `row`.

        Args:
            columns: a subset of the table's; None for all.
            version: as `version` returned it when the table was listed.
        """

    @abstractmethod
    def columns(self, uri: str) -> pa.Schema:
        """Return the schema of a table."""

    def version(self, uri: str) -> str:  # noqa: ARG002 - for subclasses
        """Return the table's version, which locators name beside the row; "" where a table is one file."""
        return ""

    def records(self, uri: str) -> Iterator[Record]:
        try:
            schema, label = self.columns(uri), self.mapping.label
            columns, lazy = self._listed_columns(schema.names, is_local(uri))
            version, classes = self.version(uri), _class_names(schema, label)
            for first, batch in self.batches(uri, columns, version=version):
                for i, fields in enumerate(_rows(batch)):
                    locator = f"{first + i}@{version}" if version else str(first + i)
                    if isinstance(fields, SampleError):
                        yield Record(locator, {}, fields)
                        continue
                    if label and classes and isinstance(number := fields.get(label), (int, float)):
                        # Pandas writes the numbers as floats where some are missing.
                        known = number in range(len(classes))
                        fields[label] = classes[int(number)] if known else None
                    yield Record(locator, fields, lazy=lazy)
        except (pa.ArrowException, OSError) as error:
            # pyarrow raises OSError for damage too; one of the operating system or network has an errno.
            if getattr(error, "errno", None) is not None:
                raise
            raise UserError(f"{uri} cannot be read as {self.name}: {message_line(error)}") from error

    def _listed_columns(self, names: list[str], at_hand: bool) -> tuple[list[str] | None, bool]:
        """Return the columns that a listing reads, and whether it leaves the content out.

        It does for bytes that an id names and that lie far away: they would be transferred twice. Of those at
        hand it takes the hash, so that a changed table makes new only what differs. Columns that the spec
        does not name are not read: whatever is wrong with them costs nothing.
        """
        mapping = self.mapping
        if mapping.content not in names:
            return None, False
        lazy = mapping.bytes is not None and mapping.id is not None and mapping.id in names and not at_hand
        needed = {
            mapping.id,
            mapping.label,
            mapping.link,
            mapping.group,
            *self.schema,
            *(() if lazy else (mapping.content,)),
        }
        return [name for name in names if name in needed], lazy

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        number, _, version = locator.partition("@")
        row, cursor = int(number), self._cursor
        if cursor is None or cursor.table != (uri, version) or row < cursor.first:
            cursor = self._move_cursor(uri, version, row)
        while row >= cursor.first + cursor.batch.num_rows:
            following = next(cursor.batches, None)
            if following is not None:
                cursor.first, cursor.batch = following
            elif cursor.row == row:
                raise SampleError("source_changed", f"{uri} was listed with a row {row} and has none now")
            else:
                cursor = self._move_cursor(uri, version, row)
        fields: dict[str, Any] = cursor.batch.slice(row - cursor.first, 1).to_pylist()[0]
        return fields

    def _move_cursor(self, uri: str, version: str, row: int) -> _Cursor:
        columns = [name for name in self.columns(uri).names if name == self.mapping.content]
        self._cursor = _Cursor((uri, version), row, self.batches(uri, columns, row, version))
        return self._cursor

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cursor"}


class ParquetRows(RowFile):
    """Rows of a Parquet file, read again by row groups."""

    name = "parquet"
    endings = (".parquet",)

    def columns(self, uri: str) -> pa.Schema:
        return parquet_schema(self.opener, uri)

    def batches(
        self,
        uri: str,
        columns: list[str] | None,
        row: int | None = None,
        version: str = "",  # noqa: ARG002 - a file has none
    ) -> Batches:
        return parquet_batches(self.opener, uri, columns, row)


@dataclass
class _Cursor:
    """The position of a reader.

    Attributes:
        table: its URI and version.
        row: the row whose group it started with.
        batches: the following batches.
        first: number of the first row of `batch`.
    """

    table: tuple[str, str]
    row: int
    batches: Batches
    first: int = 0
    batch: pa.RecordBatch = field(
        default_factory=lambda: pa.RecordBatch.from_pylist([], schema=pa.schema([]))
    )


def parquet_schema(opener: ObjectOpener, uri: str) -> pa.Schema:
    """Read the schema of a Parquet file."""
    import pyarrow.parquet as parquet

    with opener.open(uri) as stream:
        return parquet.read_schema(stream)


def parquet_batches(opener: ObjectOpener, uri: str, columns: list[str] | None, row: int | None) -> Batches:
    """Yield the batches of a Parquet file, see `RowFile.batches`; the groups are the file's own."""
    import pyarrow.parquet as parquet

    first = 0
    with opener.open(uri) as stream:
        # Buffered: otherwise a column chunk is read as a whole, which may be all pictures of a shard.
        metadata = parquet.read_metadata(stream)
        file = parquet.ParquetFile(
            stream, metadata=metadata, buffer_size=1 << 20, read_dictionary=_repeating_columns(metadata)
        )
        for group in range(file.num_row_groups):
            info = file.metadata.row_group(group)
            if row is None or first <= row < first + info.num_rows:
                _require_sound_group(info, uri)
            if row is None or first <= row < first + info.num_rows:
                size = _batch_rows(info.total_byte_size, info.num_rows)
                at = first
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=columns):
                    yield at, batch
                    at += batch.num_rows
            first += info.num_rows


def _repeating_columns(metadata: Any) -> list[str]:
    """Return the columns of which the rows of a batch may all be one long value of a dictionary."""
    found: dict[str, None] = {}
    for group in range(metadata.num_row_groups):
        info = metadata.row_group(group)
        rows = min(_BATCH_ROWS, info.num_rows)
        for place in range(info.num_columns):
            column = info.column(place)
            if (
                column.physical_type == "BYTE_ARRAY"
                and "." not in column.path_in_schema
                and column.total_uncompressed_size * rows > _REPEATED_BYTES
                and any("DICTIONARY" in encoding for encoding in column.encodings)
            ):
                found[column.path_in_schema] = None
    return list(found)


def _require_sound_group(info: Any, uri: str) -> None:
    """Check that no column of a row group unpacks to far more than it has bytes.

    Raises:
        SampleError: ``decompression_bomb``.
    """
    for place in range(info.num_columns):
        column = info.column(place)
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        per_row = column.num_values // max(1, info.num_rows)
        if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed) or per_row > _MOST_ROW_VALUES:
            raise SampleError(
                "decompression_bomb",
                f"{uri}: the column {column.path_in_schema} unpacks from {packed:,} bytes to {unpacked:,}, "
                f"or to {per_row:,} values in a row",
            )


def _batch_rows(size: int, rows: int) -> int:
    """Return the rows of one batch, of a table with this many bytes and rows."""
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | SampleError]:
    """Yield a batch's rows as Python objects, converting few at a time where they are large.

    A row with a value that Python cannot hold (a text that is not UTF-8, a time beyond the year 9999) is that
    row's error.
    """
    batch = _clear_zones(_clear_nat(batch))
    for part in _parts(batch):
        try:
            yield from part.to_pylist()
        except (ValueError, OverflowError, KeyError, pa.ArrowException):
            yield from map(_row, (part.slice(place, 1) for place in range(part.num_rows)))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield slices of a batch that are small as Python objects, which share no value of a dictionary."""
    step = _batch_rows(batch.nbytes, batch.num_rows)
    shared = [sizes for column in batch.columns if (sizes := _shared_sizes(column)) is not None]
    total = np.cumsum(np.sum(shared, axis=0)) if shared else None
    start = 0
    while start < batch.num_rows:
        rows = min(step, batch.num_rows - start)
        if total is not None:
            before = int(total[start - 1]) if start else 0
            fitting = int(np.searchsorted(total[start : start + rows], before + _BATCH_BYTES, "right"))
            rows = max(1, fitting)
        yield batch.slice(start, rows)
        start += rows


def _shared_sizes(column: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return the bytes of each value of a column whose rows share values; None for other columns."""
    if isinstance(column, pa.RunEndEncodedArray):
        ends, values = np.asarray(column.run_ends, np.int64), column.values
        lengths = _value_sizes(values)
        places = np.searchsorted(ends, np.arange(len(column)) + column.offset, "right")
    elif isinstance(column, pa.DictionaryArray):
        lengths = _value_sizes(column.dictionary)
        places = pc.fill_null(column.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        return None
    return lengths[places] if len(lengths) else np.zeros(len(column), np.int64)


def _value_sizes(values: pa.Array) -> np.ndarray[Any, Any]:
    if pa.types.is_null(values.type) or not len(values):
        return np.zeros(len(values), np.int64)
    try:
        lengths = pc.fill_null(pc.binary_length(values), 0)
    except pa.ArrowNotImplementedError:  # numbers, or nested values
        return np.full(len(values), values.nbytes // len(values), np.int64)
    return np.asarray(lengths, np.int64)


def _row(row: pa.RecordBatch) -> dict[str, Any] | SampleError:
    try:
        fields: dict[str, Any] = row.to_pylist()[0]
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        return SampleError("bad_record", f"a value of the row cannot be read: {error}")
    return fields


def _clear_nat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with null for NumPy's NaT, which is a number that Python's times lack."""
    for i, column in enumerate(batch.columns):
        if pa.types.is_timestamp(column.type):
            is_nat = pc.equal(column.view(pa.int64()), _NAT)
            if pc.any(is_nat).as_py():
                cleared = pc.if_else(is_nat, pa.scalar(None, column.type), column)
                batch = batch.set_column(i, batch.schema.field(i).with_nullable(True), cleared)
    return batch


def _clear_zones(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with times in UTC where Python does not know their zone; they are the same moments."""
    for i, column in enumerate(batch.columns):
        if pa.types.is_timestamp(column.type) and column.type.tz:
            try:
                pa.scalar(0, column.type).as_py()
            except (KeyError, ValueError):  # pytz has an error of its own, which is a KeyError
                in_utc = pa.timestamp(column.type.unit, "UTC")
                batch = batch.set_column(i, batch.schema.field(i).with_type(in_utc), column.view(in_utc))
    return batch


def _class_names(schema: pa.Schema, column: str | None) -> list[str]:
    """Return the class names of a Hugging Face `ClassLabel`, from the schema; empty for other columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
