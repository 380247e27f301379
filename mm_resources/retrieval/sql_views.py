"""SQL over what is published: ``features('DATASET@VERSION', 'MODALITY')`` in a query is a pinned table.

A stage is one, too, by the name of its asset: ``curated_samples('DATASET@VERSION', 'MODALITY')`` is the rows
from which the pin was made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import sql_users
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog

if TYPE_CHECKING:
    import lance

_STAGES = STAGES[: STAGES.index("feature_table")]
_TABLE = re.compile(rf"\b(features|{'|'.join(_STAGES)})\s*\(\s*'([^']+)'\s*,\s*'([^']+)'\s*\)", re.IGNORECASE)


@contextmanager
def query_features(catalog: Catalog, statement: str) -> Iterator[pa.RecordBatchReader]:
    """Run a query over published features and stream its result; it reaches nothing else.

    A version or an alias stands for its pin of the moment.

    Raises:
        UserError: for what is not published, names no table, or is not one query.
    """
    tables: dict[str, lance.LanceDataset] = {}

    def table(match: re.Match[str]) -> str:
        asset, pin = match[1].lower(), catalog.registry.published_pin(match[2], match[3])
        name = f"{asset}_{len(tables)}"
        if asset == "features":
            tables[name] = catalog.features.dataset(pin.primary.table, pin.primary.lance_version)
        elif asset in pin.stages:
            tables[name] = catalog.tables.dataset(asset, pin.cell, pin.place(asset))
        else:
            raise UserError(f"{pin.dataset_version} {pin.modality} was published without {asset}")
        return name

    rewritten = _TABLE.sub(table, statement)
    if not tables:
        raise UserError(
            "the statement names no table; write one as features('DATASET@VERSION', 'MODALITY'), "
            "such as SELECT label, count(*) FROM features('birds@v2', 'image') GROUP BY 1"
        )
    with sql_users.query_locked(rewritten, **tables) as rows:
        yield rows
