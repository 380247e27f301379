"""Side tables: columns for the files of a source, from a CSV, JSONL or Parquet table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_embed_kernels.spec.source_spec import SideTable, SourceSpec
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.base import Listed, Unmatched, cast_value, is_missing, text_of
from mm_resources.sources.path_ends import PathEnds
from mm_resources.sources.records import open_records

# Rows and characters of a side table, which is held in memory.
_MOST_ROWS, _MOST_BYTES = 20_000_000, 2 << 30
# Rows that are read where the first sample of the files is wanted alone.
_PEEKED_ROWS = 1_000
# Columns that a message may name, and rows and files of one.
_MOST_COLUMNS, _NAMED = 100, 3


class SideTableReader:
    """Reads the columns of a side table, joined by the sample's key or, where that is unique, its file name.

    A path of another machine, such as ``/home/ann/birds/1.jpg`` for ``birds/1.jpg``, joins
    the one file with which it shares its end.

    A row without a key describes no file, as a row of an absent file does. A field that a row of JSON lacks
    is null, as long as any row has it.

    Attributes:
        rows: key -> the row's columns.
        refused: failed samples for rows that cannot be read or contradict an earlier row of the same key,
            since their files are unknown.
    """

    def __init__(
        self, spec: SourceSpec, schema: dict[str, str], opener: ObjectOpener, peeks: bool = False
    ) -> None:
        self.spec, self.schema, self.opener = spec.table, schema, opener
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: list[Listed] = []
        self._ambiguous: set[str] = set()
        self._shared_ends: set[str] = set()
        self._joined: set[str] = set()
        self._alone, self._first_alone = 0, list[str]()
        self._size, self._ended = 0, True
        if spec.table is not None:
            self._load(spec.table, _PEEKED_ROWS if peeks else None)
        self._ends = PathEnds(self.rows)

    def _load(self, table: SideTable, most: int | None) -> None:
        columns, seen = [table.key, *table.columns], dict[str, None]()
        records = iter(open_records(table.uri, self.opener.policy))
        for record in islice(records, most):
            if record.error:
                self._refuse(table, record.locator, record.error)
                continue
            # JSON lines each have fields of their own; what belongs to no file's row is bounded.
            if len(seen) < _MOST_COLUMNS:
                seen |= dict.fromkeys(record.fields)
            if table.key not in record.fields and self.rows:
                error = SampleError("missing_field", f"{table.uri}: a row has no field {table.key!r}")
                self._refuse(table, record.locator, error)
                continue
            self._size += sum(len(value) for value in record.fields.values() if isinstance(value, str))
            if self._size > _MOST_BYTES or len(self.rows) > _MOST_ROWS:
                raise UserError(
                    f"side table {table.uri} has more than {_MOST_ROWS:,} rows or {_MOST_BYTES:,} "
                    "characters, which are held in memory; give the columns with the records instead"
                )
            # NaN is unequal to itself: a repeated row would contradict itself.
            fields = {name: record.fields.get(name) for name in columns}
            row = {name: None if is_missing(value) else value for name, value in fields.items()}
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
        # A later line of JSON may have what the first ones lack.
        self._ended = most is None or next(records, None) is None
        if seen and self._ended and (missing := [name for name in columns if name not in seen]):
            raise UserError(
                f"side table {table.uri} has no column {missing[0]!r}; it has: {', '.join(map(str, seen))}"
            )

    def _refuse(self, table: SideTable, locator: str, error: SampleError) -> None:
        name = table.uri.rsplit("/", 1)[-1]
        self.refused.append(Listed(key=f"{name}#{locator}", uri=table.uri, error=error))

    def find_ambiguous_names(self, keys: Iterable[str]) -> None:
        """Find the file names that two files share: a row that names them joins neither.

        Args:
            keys: of all samples.
        """
        counts, ends = Counter[str](), Counter[str]()
        for key in keys:
            name = key.rsplit("/", 1)[-1]
            if name in self.rows:
                counts[name] += 1
            ends.update([key] if key in self.rows else self._ends.of(key))
        self._ambiguous = {name for name, count in counts.items() if count > 1}
        self._shared_ends = {row for row, count in ends.items() if count > 1}

    def unmatched(self) -> dict[str, Unmatched]:
        """Return what was not joined, once all samples were: rows without a file, and files without a row.

        Nothing where the table was not read to its end: the rows behind may be those of the files.
        """
        if self.spec is None or not self._ended:
            return {}
        rows = (key for key in self.rows if key not in self._joined)
        return {
            "rows without a file": Unmatched(len(self.rows) - len(self._joined), list(islice(rows, _NAMED))),
            "files without a row": Unmatched(self._alone, self._first_alone),
        }

    def join(self, item: Listed) -> None:
        """Fill a sample's fields and columns from its row, if it has one."""
        if self.spec is None:
            return
        file_name = item.key.rsplit("/", 1)[-1]
        key = item.key if item.key in self.rows or file_name in self._ambiguous else file_name
        row = self.rows.get(key)
        if not row and len(ends := self._ends.of(item.key)) == 1 and ends[0] not in self._shared_ends:
            key, row = ends[0], self.rows[ends[0]]
        if not row:
            self._alone += 1
            self._first_alone += [item.key] if len(self._first_alone) < _NAMED else []
            return
        self._joined.add(key)
        for name in self.spec.columns:
            try:
                if name in SAMPLE_FIELDS:
                    setattr(item, name, text_of(row[name], name))
                if name in self.schema:
                    item.columns[name] = cast_value(row[name], self.schema[name])
            except SampleError as error:
                item.error = error
