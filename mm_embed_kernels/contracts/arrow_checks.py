"""The row checks of a contract by Arrow's own functions: whether a table holds them, in one pass.

pandera names rows and causes where a table does not. Nearly all do, and importing pandera, with polars,
pandas and hypothesis, takes a second.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def holds(table: pa.Table, schema: pa.Schema) -> bool:
    """Return whether the flat columns of a table surely hold types and checks of their fields in `schema`.

    Where Arrow and pandera might differ, such as about NaN, the answer is False.
    """
    return all(
        _column_holds(table.column(item.name), schema.field(item.name))
        for item in table.schema
        if not pa.types.is_nested(item.type)
    )


def _column_holds(column: pa.ChunkedArray, item: pa.Field) -> bool:
    if column.type != item.type or (column.null_count and not item.nullable):
        return False
    meta = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return False
    if "ge" in meta or "le" in meta:
        bounds = pc.min_max(column).as_py()
        if bounds["min"] is not None and not (
            float(meta.get("ge", "-inf")) <= bounds["min"] and bounds["max"] <= float(meta.get("le", "inf"))
        ):
            return False
    if "pattern" in meta and not _all(pc.match_substring_regex(column, f"^(?:{meta['pattern']})")):
        return False
    if "choices" in meta:
        chosen = pa.array(meta["choices"].split("|"), column.type)
        return _all(pc.is_in(column.drop_null(), chosen))
    return True


def _all(found: pa.ChunkedArray) -> bool:
    """Return whether all values are true; nulls do not count."""
    return bool(pc.all(found, min_count=0).as_py())
