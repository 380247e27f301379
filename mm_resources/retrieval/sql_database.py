"""A DuckDB file with the published tables, for tools that know nothing of the store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from mm_embed_kernels import sql_users
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.storage import lance_datasets

# The table that says what the others are.
CONTENTS = "published"


def save_features(catalog: Catalog, dataset_versions: Sequence[str], path: Path) -> list[dict[str, object]]:
    """Copy the published feature tables of versions into a new DuckDB file; return the rows of `CONTENTS`.

    A table is named ``DATASET_VERSION_MODALITY``, in small letters, digits and underscores; that of an
    embedder beside the primary one has its name behind. Rows are streamed.

    Args:
        dataset_versions: of them, or behind aliases; all for none.

    Raises:
        UserError: for what is not published, and where the file exists or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists; name another file, or remove it")
    wanted: Sequence[str | None] = dataset_versions or [None]
    pins = [pin for each in wanted for pin in catalog.registry.published_pins(each)]
    if not pins:
        raise UserError(
            f"nothing is published of {' and '.join(dataset_versions) or 'this store'}; run `mm backfill`"
        )
    named = _named_tables(pins)
    contents = [_describe(name, pin, table) for name, (pin, table) in named.items()]
    sql_users.save_database(path, _Streams(catalog, named, pa.Table.from_pylist(contents)))
    return contents


class _Streams(Mapping[str, "pa.RecordBatchReader | pa.Table"]):
    """The tables by name; each is opened when it is its turn."""

    def __init__(
        self, catalog: Catalog, named: Mapping[str, tuple[Pin, PinnedTable]], contents: pa.Table
    ) -> None:
        self._catalog, self._named, self._contents = catalog, named, contents

    def __iter__(self) -> Iterator[str]:
        yield from (CONTENTS, *self._named)

    def __len__(self) -> int:
        return 1 + len(self._named)

    def __getitem__(self, name: str) -> pa.RecordBatchReader | pa.Table:
        if name == CONTENTS:
            return self._contents
        table = self._named[name][1]
        dataset = self._catalog.features.dataset(table.table, table.lance_version)
        return lance_datasets.reader(dataset, dataset.schema)


def _named_tables(pins: Sequence[Pin]) -> dict[str, tuple[Pin, PinnedTable]]:
    """Return the pinned tables by names that need no quotes in SQL."""
    named: dict[str, tuple[Pin, PinnedTable]] = {}
    for pin in pins:
        for table in pin.tables:
            words = [pin.dataset, pin.version, pin.modality, *([] if table.primary else [table.embedder])]
            plain = re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower())
            plain = plain if plain[0].isalpha() else f"t_{plain}"
            name, number = plain, 1
            while name in named:
                number += 1
                name = f"{plain}_{number}"
            named[name] = (pin, table)
    return named


def _describe(name: str, pin: Pin, table: PinnedTable) -> dict[str, object]:
    return {
        "table_name": name,
        "dataset_version": pin.dataset_version,
        "modality": pin.modality,
        "embedder": table.embedder,
        "fingerprint": table.fingerprint,
        "space": table.space,
        "rows": table.rows,
        "pin": pin.number,
        "published_at": pin.published_at,
        "lance_table": table.table,
        "lance_version": table.lance_version,
        "digest": table.digest,
    }
