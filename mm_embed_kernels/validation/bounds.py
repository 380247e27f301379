"""Validation rules of a spec: what the columns of a sample may hold, judged as soon as they are known.

What the listing knows (size, extension, source, label) is judged before the bytes are fetched, the rest after the probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts.fields import MEDIA
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.spec.thresholds import ColumnRule

REJECTED = "rejected_by_rule"
# Known before a sample is fetched.
LISTED = {"size": pa.int64(), "extension": pa.string(), "source": pa.string(), "label": pa.string()}
# The extension of a key in lower case, "" where it has none, in SQL and for pyarrow.
EXTENSION = r"[^/]\.([A-Za-z0-9]{1,10})$"
EXTENSION_SQL = f"lower(regexp_extract(key, '{EXTENSION}', 1))"


def judged_columns(modality: Modality) -> dict[str, pa.DataType]:
    """The columns that a rule may look at: numbers, texts and flags of the listing and of the probe."""
    probed = {item.name: item.type for item in [*MEDIA, *modality.signals]}
    return {
        name: kind
        for name, kind in {**LISTED, **probed}.items()
        if _is_number(kind) or kind in (pa.string(), pa.bool_())
    }


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


@dataclass(frozen=True)
class Bound:
    """One bound of one column: ``min``, ``max``, ``one_of`` or ``none_of``. What was not measured passes."""

    modality: str
    column: str
    name: str
    limit: Any

    def broken(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Whether each value is outside the bound; null for a null."""
        if self.name == "min":
            return pc.less(values, self.limit)
        if self.name == "max":
            return pc.greater(values, self.limit)
        listed = pc.if_else(pc.is_valid(values), pc.is_in(values, pa.array(self.limit, values.type)), None)
        return listed if self.name == "none_of" else pc.invert(listed)

    def reason(self, value: Any) -> str:
        limit = ", ".join(map(str, self.limit)) if isinstance(self.limit, list) else self.limit
        return f"{self.column} is {value!r}; allowed is {self.name}: {limit} (validation.{self.modality}.{self.column})"


def validation_bounds(modality: Modality, rules: Mapping[str, ColumnRule]) -> list[Bound]:
    """The bounds that a spec sets for a modality.

    Raises:
        UserError: for a column that no rule can look at, or a bound that does not fit its type.
    """
    known = judged_columns(modality)
    bounds = []
    for column, rule in rules.items():
        where = f"validation.{modality.name}.{column}"
        if column not in known:
            raise UserError(f"{where}: no such column; there are: {', '.join(known)}")
        for name, limit in rule.model_dump(exclude_none=True).items():
            if name in ("min", "max") and not _is_number(known[column]):
                raise UserError(f"{where}.{name}: {column} is no number; use one_of or none_of")
            for value in limit if isinstance(limit, list) else []:
                if not _fits(value, known[column]):
                    raise UserError(f"{where}.{name}: {value!r} is no {known[column]}")
            folded = [value.lower() for value in limit] if column == "extension" else limit
            bounds.append(Bound(modality.name, column, name, folded))
    return bounds


def _fits(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, bool) or kind == pa.bool_():
        return isinstance(value, bool) and bool(kind == pa.bool_())
    return isinstance(value, (int, float)) if _is_number(kind) else isinstance(value, str)


def judge(table: pa.Table, bounds: list[Bound]) -> list[str | None]:
    """For each row, why the first bound that it breaks rejects it; bounds of columns that the table lacks wait."""
    reasons: list[str | None] = [None] * table.num_rows
    for bound in bounds:
        values = _column(table, bound.column)
        if values is None:
            continue
        for row in pc.indices_nonzero(pc.fill_null(bound.broken(values), False)).to_pylist():
            reasons[row] = reasons[row] or bound.reason(values[row].as_py())
    return reasons


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    if name == "extension" and "key" in table.column_names:
        found = pc.struct_field(
            pc.extract_regex(table["key"], EXTENSION.replace("(", "(?P<extension>")), "extension"
        )
        return pc.utf8_lower(pc.fill_null(found, ""))
    return table[name] if name in table.column_names else None


def at_the_door(listing: pa.RecordBatchReader, bounds: list[Bound]) -> pa.RecordBatchReader:
    """A listing in which what breaks a bound is refused, as if the source had refused it: it is never fetched."""

    def refused() -> Iterator[pa.RecordBatch]:
        for batch in listing:
            table = pa.Table.from_batches([batch])
            reasons = pa.array(judge(table, bounds), pa.string())
            earlier = pc.is_valid(table["error_class"])
            classes = pc.if_else(pc.is_valid(reasons), REJECTED, pa.scalar(None, pa.string()))
            for name, found in (("error_class", classes), ("message", reasons)):
                column = pc.if_else(earlier, table[name], found)
                table = table.set_column(table.column_names.index(name), listing.schema.field(name), column)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(listing.schema, refused()) if bounds else listing
