"""TODO."""

from __future__ import annotations

import pyarrow as pa

# Blobs that were found damaged or missing, until they are fetched again.
DAMAGED = pa.schema([("content_hash", pa.string())])
