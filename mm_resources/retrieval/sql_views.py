"""SQL over published features: ``features('DATASET@VERSION', 'MODALITY')`` in a query is a pinned table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog

if TYPE_CHECKING:
    import lance

_TABLE = re.compile(r"\bfeatures\s*\(\s*'([^']+)'\s*,\s*'([^']+)'\s*\)", re.IGNORECASE)


@contextmanager
def query_features(catalog: Catalog, statement: str) -> Iterator[pa.RecordBatchReader]:
    """Run a query over published features and stream its result; it reaches nothing else.

    A version or an alias stands for its pin of the moment.

    Raises:
        UserError: for what is not published, names no table, or is not one query.
    """
    tables: dict[str, lance.LanceDataset] = {}

    def table(match: re.Match[str]) -> str:
        primary = catalog.registry.published_pin(match[1], match[2]).primary
        name = f"features_{len(tables)}"
        tables[name] = catalog.features.dataset(primary.table, primary.lance_version)
        return name

    rewritten = _TABLE.sub(table, statement)
    if not tables:
        raise UserError(
            "the statement names no table; write one as features('DATASET@VERSION', 'MODALITY'), "
            "such as SELECT label, count(*) FROM features('birds@v2', 'image') GROUP BY 1"
        )
    with sql.query_locked(rewritten, **tables) as rows:
        yield rows
