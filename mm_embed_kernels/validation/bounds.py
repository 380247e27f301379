"""Validation rules of a spec: bounds on the columns of a sample, checked as soon as a column has a value.

Columns of the listing (size, extension, source, label) are checked before download, the others after the
probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts.fields import MEDIA, is_number
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.spec.thresholds import ColumnRule

REJECTED = "rejected_by_rule"
# Columns of the listing, which have a value before download.
LISTING_COLUMNS = {"size": pa.int64(), "extension": pa.string(), "source": pa.string(), "label": pa.string()}
# Finds the file extension in a key.
EXTENSION = r"[^/]\.([A-Za-z0-9]{1,10})$"


def extension_sql(key: str) -> str:
    """Return the SQL for the file extension of a column of keys, in lower case; "" without one."""
    return f"lower(regexp_extract({key}, '{EXTENSION}', 1))"


def bounded_columns(modality: Modality) -> dict[str, pa.DataType]:
    """Types of the columns that can have bounds: numbers, texts and flags of the listing and the probe."""
    probed = {item.name: item.type for item in [*MEDIA, *modality.signals]}
    return {
        name: kind
        for name, kind in {**LISTING_COLUMNS, **probed}.items()
        if is_number(kind) or kind in (pa.string(), pa.bool_())
    }


@dataclass(frozen=True)
class Bound:
    """One bound of one column; a value that was not measured passes.

    Attributes:
        modality: the modality whose rule it is.
        column: column of the listing or the probe.
        name: ``min``, ``max``, ``one_of`` or ``none_of``.
        limit: a number, or a list of values.
    """

    modality: str
    column: str
    name: str
    limit: Any

    def violations(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return whether each value is outside the bound; null for a null."""
        if self.name == "min":
            return pc.less(values, self.limit)
        if self.name == "max":
            return pc.greater(values, self.limit)
        listed = pc.if_else(pc.is_valid(values), pc.is_in(values, pa.array(self.limit, values.type)), None)
        return listed if self.name == "none_of" else pc.invert(listed)

    def reason(self, value: Any) -> str:
        """Return the failure message of a sample with this value."""
        limit = ", ".join(map(str, self.limit)) if isinstance(self.limit, list) else self.limit
        where = f"validation.{self.modality}.{self.column}"
        return f"{self.column} is {value!r}; allowed is {self.name}: {limit} ({where})"


def validation_bounds(modality: Modality, rules: Mapping[str, ColumnRule]) -> list[Bound]:
    """Return the bounds that a spec sets for a modality.

    Raises:
        UserError: for an unknown column, or a bound that does not fit the column's type.
    """
    columns = bounded_columns(modality)
    bounds = []
    for column, rule in rules.items():
        where = f"validation.{modality.name}.{column}"
        if column not in columns:
            raise UserError(f"{where}: no such column; there are: {', '.join(columns)}")
        for name, limit in rule.model_dump(exclude_none=True).items():
            if name in ("min", "max") and not is_number(columns[column]):
                raise UserError(f"{where}.{name}: {column} is no number; use one_of or none_of")
            for value in limit if isinstance(limit, list) else []:
                if not _fits(value, columns[column]):
                    raise UserError(f"{where}.{name}: {value!r} is no {columns[column]}")
            folded = [value.lower() for value in limit] if column == "extension" else limit
            bounds.append(Bound(modality.name, column, name, folded))
    return bounds


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Return whether a value can be compared with values of a column's type."""
    if isinstance(value, bool) or kind == pa.bool_():
        return isinstance(value, bool) and bool(kind == pa.bool_())
    return isinstance(value, (int, float)) if is_number(kind) else isinstance(value, str)


def rejection_reasons(table: pa.Table, bounds: list[Bound]) -> list[str | None]:
    """Return the message of the first violated bound of each row, or None; absent columns are skipped."""
    reasons: list[str | None] = [None] * table.num_rows
    for bound in bounds:
        values = _column(table, bound.column)
        if values is None:
            continue
        for row in pc.indices_nonzero(pc.fill_null(bound.violations(values), False)).to_pylist():
            reasons[row] = reasons[row] or bound.reason(values[row].as_py())
    return reasons


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    """Return a column, or the extension of the column ``key``; None for an absent column."""
    if name == "extension" and "key" in table.column_names:
        extension = pc.struct_field(
            pc.extract_regex(table["key"], EXTENSION.replace("(", "(?P<extension>")), "extension"
        )
        return pc.utf8_lower(pc.fill_null(extension, ""))
    return table[name] if name in table.column_names else None


def reject_before_download(listing: pa.RecordBatchReader, bounds: list[Bound]) -> pa.RecordBatchReader:
    """Stream a listing with a failure in each row that violates a bound, so that it is never fetched.

    Args:
        listing: rows with ``error_class`` and ``message``, which are set by the source for rows that it
            rejects.
        bounds: bounds of the spec.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in listing:
            table = pa.Table.from_batches([batch])
            reasons = pa.array(rejection_reasons(table, bounds), pa.string())
            earlier = pc.is_valid(table["error_class"])
            classes = pc.if_else(pc.is_valid(reasons), REJECTED, pa.scalar(None, pa.string()))
            for name, values in (("error_class", classes), ("message", reasons)):
                column = pc.if_else(earlier, table[name], values)
                table = table.set_column(table.column_names.index(name), listing.schema.field(name), column)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(listing.schema, batches()) if bounds else listing
