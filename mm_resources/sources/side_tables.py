"""Side tables: columns for the files of a source, from a CSV, JSONL or Parquet table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_embed_kernels.spec.source_spec import SideTable, SourceSpec
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.base import Listed, cast_value, is_missing, text_of
from mm_resources.sources.records import open_records

# Rows and characters of a side table, which is held in memory.
_MOST_ROWS, _MOST_BYTES = 20_000_000, 2 << 30


class SideTableReader:
    """Reads the columns of a side table, joined by the sample's key or, where that is unique, its file name.

    A row without a key describes no file, as a row of an absent file does.

    Attributes:
        rows: key -> the row's columns.
        refused: failed samples for rows that cannot be read or contradict an earlier row of the same key,
            since their files are unknown.
    """

    def __init__(self, spec: SourceSpec, schema: dict[str, str], opener: ObjectOpener) -> None:
        self.spec, self.schema, self.opener = spec.table, schema, opener
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: list[Listed] = []
        self._ambiguous: set[str] = set()
        self._size = 0
        if spec.table is not None:
            self._load(spec.table)

    def _load(self, table: SideTable) -> None:
        columns, is_read = [table.key, *table.columns], False
        for record in open_records(table.uri, self.opener.policy):
            if record.error:
                self._refuse(table, record.locator, record.error)
                continue
            missing = [name for name in columns if name not in record.fields]
            if missing and is_read:
                # JSON lines each have fields of their own.
                error = SampleError("missing_field", f"{table.uri}: a row has no field {missing[0]!r}")
                self._refuse(table, record.locator, error)
                continue
            if missing:
                raise UserError(
                    f"side table {table.uri} has no column {missing[0]!r}; it has: {', '.join(record.fields)}"
                )
            is_read = True
            self._size += sum(len(value) for value in record.fields.values() if isinstance(value, str))
            if self._size > _MOST_BYTES or len(self.rows) > _MOST_ROWS:
                raise UserError(
                    f"side table {table.uri} has more than {_MOST_ROWS:,} rows or {_MOST_BYTES:,} "
                    "characters, which are held in memory; give the columns with the records instead"
                )
            # NaN is unequal to itself: a repeated row would contradict itself.
            row = {name: None if is_missing(record.fields[name]) else record.fields[name] for name in columns}
            try:
                key = text_of(row[table.key], table.key)
            except SampleError as error:
                self._refuse(table, record.locator, error)
                continue
            if key is None:
                continue
            if self.rows.setdefault(key, row) != row:
                contradiction = (
                    f"{table.uri}: {key!r} stands more than once with different values; the first row counts"
                )
                self._refuse(table, record.locator, SampleError("duplicate_row", contradiction))

    def _refuse(self, table: SideTable, locator: str, error: SampleError) -> None:
        name = table.uri.rsplit("/", 1)[-1]
        self.refused.append(Listed(key=f"{name}#{locator}", uri=table.uri, error=error))

    def find_ambiguous_names(self, keys: Iterable[str]) -> None:
        """Find the file names that two files share: a row that names them joins neither.

        Args:
            keys: of all samples.
        """
        counts: Counter[str] = Counter()
        for key in keys:
            name = key.rsplit("/", 1)[-1]
            if name in self.rows:
                counts[name] += 1
        self._ambiguous = {name for name, count in counts.items() if count > 1}

    def join(self, item: Listed) -> None:
        """Fill a sample's fields and columns from its row, if it has one."""
        if self.spec is None:
            return
        file_name = item.key.rsplit("/", 1)[-1]
        row = self.rows.get(item.key)
        if not row and file_name not in self._ambiguous:
            row = self.rows.get(file_name)
        if not row:
            return
        for name in self.spec.columns:
            try:
                if name in SAMPLE_FIELDS:
                    setattr(item, name, text_of(row[name], name))
                if name in self.schema:
                    item.columns[name] = cast_value(row[name], self.schema[name])
            except SampleError as error:
                item.error = error
