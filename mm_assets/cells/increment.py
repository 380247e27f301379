"""Rows that a run takes over from a base, and the samples whose rows it computes again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import find_rows, read_rows
from mm_resources.storage.store import Store
from mm_resources.tables.stage_refs import StageRef

CONTENT = "content_hash"


@dataclass
class Increment:
    """A run on the difference from a base.

    Attributes:
        base: the rows that are taken over, but for those of `owners`.
        owner: column that names the owner of a row.
        owners: owners whose rows are computed again, distinct.
        find_contents: returns their contents, upstream.
    """

    base: StageRef
    owner: str
    owners: pa.Array
    find_contents: Callable[[], pa.Array]

    @cached_property
    def contents(self) -> pa.Array:
        """The contents of the owners."""
        return self.find_contents()

    def filter_of(self, names: list[str]) -> tuple[str, pa.Array] | None:
        """Return column and values of the rows to read of a table with some columns; None for all of it."""
        if self.owner in names:
            return self.owner, self.owners
        return (CONTENT, self.contents) if CONTENT in names else None


def count_kept(increment: Increment, store: Store, contract: Contract, kernel: str) -> int:
    """Return how many results of a kernel the rows that are taken over from the base stand for.

    An estimate where contents repeat, or failed samples were requested: a result that several rows share
    counts as gone with one of them.
    """
    base = lance_datasets.open_dataset(store.uri(increment.base.table), increment.base.lance_version)
    names, requested = contract.schema.names, increment.base.meta.work.get(kernel, 0)
    if base is None or not requested or increment.owner not in names:
        return 0
    by = next(name for name in ("cache_key", "status", CONTENT) if name in names)
    column = contract.key if by == "status" else by
    columns = [name for name in (column, "embedder", "status") if name in names]
    replaced = read_rows(base, find_rows(base, increment.owner, increment.owners), columns)
    keys = {
        row[column]
        for row in replaced.read_all().to_pylist()
        if ("embedder" not in row or kernel.endswith(f":{row['embedder']}"))
        # A record that cannot be read is listed, and not requested.
        and (by != "status" or row["status"] == "fetched")
    }
    return max(0, requested - len(keys))
