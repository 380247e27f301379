"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mm_resources.exports.base import Format, Request, Rows

# What Hugging Face's features of media are stored as.
MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Parquet(Format):
    """Parquet files; a medium is a struct of its bytes and a file name, as Hugging Face reads it."""

    name, suffix = "parquet", ".parquet"

    def write(self, rows: Iterable[Rows], sink: BinaryIO, request: Request) -> Any:
        schema = self.schema(request)
        with pq.ParquetWriter(pa.PythonFile(sink, "w"), schema) as out:
            for each in rows:
                out.write_table(self.table(each, request, schema))
        return None

    def schema(self, request: Request) -> pa.Schema:
        """Return the columns of the files."""
        return pa.schema([*request.schema, *(pa.field(name, MEDIUM) for name in request.media)])

    def table(self, rows: Rows, request: Request, schema: pa.Schema) -> pa.Table:
        """Return rows with their media, of the type of the files."""
        media = [media_column(rows, name) for name in request.media]
        return pa.table([*rows.table.columns, *media], names=schema.names).cast(schema)


def media_column(rows: Rows, name: str) -> pa.Array:
    """Return media as an array of `MEDIUM`; the names of the files are the ids of the features."""
    keys = rows.table[f"{name.removesuffix('media')}feature_id"].to_pylist()
    values = [
        {"bytes": medium.data, "path": f"{key}.{medium.suffix}"}
        for key, medium in zip(keys, rows.media[name], strict=True)
    ]
    return pa.array(values, MEDIUM)
