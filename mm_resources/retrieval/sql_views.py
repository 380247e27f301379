"""SQL over published features: ``features('DATASET@VERSION', 'MODALITY')`` in a query is a pinned table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog

_TABLE = re.compile(r"\bfeatures\s*\(\s*'([^']+)'\s*,\s*'([^']+)'\s*\)", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@contextmanager
def query_features(catalog: Catalog, statement: str) -> Iterator[pa.RecordBatchReader]:
    """Run a query over published features and stream its result; it reaches nothing else.

    A version or an alias stands for its pin of the moment. Of each table the columns are read that the
    statement names, and all but the vector where it has a ``*``.

    Raises:
        UserError: for what is not published, names no table, or is not one query.
    """
    streams: dict[str, pa.RecordBatchReader] = {}
    words = {word.lower() for word in _WORD.findall(_TABLE.sub(" ", statement))}
    every = "*" in re.sub(r"count\s*\(\s*\*\s*\)", " ", statement, flags=re.IGNORECASE)

    def table(match: re.Match[str]) -> str:
        pin = catalog.registry.published_pin(match[1], match[2])
        primary = pin.primary
        names = catalog.features.dataset(primary.table, primary.lance_version).schema.names
        named = [name for name in names if name.lower() in words or (every and name != "vector")]
        name = f"features_{len(streams)}"
        streams[name] = catalog.features.rows(pin, named or names[:1])
        return name

    rewritten = _TABLE.sub(table, statement)
    if not streams:
        raise UserError(
            "the statement names no table; write one as features('DATASET@VERSION', 'MODALITY'), "
            "such as SELECT label, count(*) FROM features('birds@v2', 'image') GROUP BY 1"
        )
    with sql.query_locked(rewritten, **streams) as rows:
        yield rows
