"""TODO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_embed_kernels.spec.source_spec import SideTable as SideTableSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.base import Listed, typed
from mm_resources.sources.records import open_records


class SideTable:
    """Columns from a side table, by the sample's key or, where that is unique, its file name.

    A row that cannot be read, or contradicts an earlier one of the same key, is `refused`: a failed sample of its own,
    since nobody can tell which files it spoke of.
    """

    def __init__(self, spec: SourceSpec, schema: dict[str, str], opener: ObjectOpener) -> None:
        self.spec, self.schema, self.opener = spec.table, schema, opener
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: list[Listed] = []
        self.ambiguous: set[str] = set()
        if spec.table is not None:
            self._load(spec.table)

    def _load(self, table: SideTableSpec) -> None:
        wanted = [table.key, *table.columns]
        for record in open_records(table.uri, self.opener.fetching):
            if record.error:
                self._refuse(table, record.locator, record.error)
                continue
            lacking = [name for name in wanted if name not in record.fields]
            if lacking:
                raise UserError(
                    f"side table {table.uri} has no column {lacking[0]!r}; it has: {', '.join(record.fields)}"
                )
            key, row = str(record.fields[table.key]), {name: record.fields[name] for name in wanted}
            if self.rows.setdefault(key, row) != row:
                contradiction = (
                    f"{table.uri}: {key!r} stands more than once with different values; the first row counts"
                )
                self._refuse(table, record.locator, SampleError("duplicate_row", contradiction))

    def _refuse(self, table: SideTableSpec, locator: str, error: SampleError) -> None:
        name = table.uri.rsplit("/", 1)[-1]
        self.refused.append(Listed(key=f"{name}#{locator}", uri=table.uri, error=error))

    def count_names(self, keys: Iterable[str]) -> None:
        """See all keys once: a row that names a file by its bare name speaks of no one if two files have that name."""
        counts: Counter[str] = Counter()
        for key in keys:
            name = key.rsplit("/", 1)[-1]
            if name in self.rows:
                counts[name] += 1
        self.ambiguous = {name for name, count in counts.items() if count > 1}

    def join(self, item: Listed) -> Listed:
        if self.spec is None:
            return item
        name = item.key.rsplit("/", 1)[-1]
        row = self.rows.get(item.key) or (self.rows.get(name) if name not in self.ambiguous else None)
        for name in self.spec.columns if row else ():
            value = row[name] if row else None
            if name in SAMPLE_FIELDS:
                setattr(item, name, None if value in (None, "") else str(value))
            if name in self.schema:
                try:
                    item.columns[name] = typed(value, self.schema[name])
                except SampleError as error:
                    item.error = error
        return item
