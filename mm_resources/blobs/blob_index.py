"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

INDEX = pa.schema(
    [("content_hash", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)


# Places off the index whose bytes still lie there, see `mm_resources.maintenance.garbage_collection`.
CONDEMNED = pa.schema([*INDEX, ("at", pa.timestamp("us", tz="UTC")), ("struck", pa.bool_())])


@dataclass(frozen=True)
class Location:
    """Where a blob lies below the store's root."""

    content_hash: str
    path: str
    offset: int
    size: int
