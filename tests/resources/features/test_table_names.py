"""Names of feature tables: what a reader has opened by a name is never another table."""

from __future__ import annotations

from pathlib import Path

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.bases import free_table_name


def test_the_name_of_a_table_that_was_forgotten_is_not_used_again(tmp_path: Path) -> None:
    catalog, cell = Catalog.open(tmp_path / "store"), Cell("birds", "v1", "text")

    def free() -> str:
        return free_table_name(catalog.registry, catalog.features, cell, "wordllama")

    assert free() == "birds.v1.text.wordllama"
    moved = {"birds.v1.text.wordllama@3": {"table": "birds.v1.text.wordllama-2", "lance_version": 3}}
    rows = {"birds.v1.text.wordllama": 1, "stages/segments/birds/v1/text": 1}
    catalog.receipts.write(Receipt("1", "a", "2026-11-30T00:00:00", rows=rows, moved=moved))
    assert free() == "birds.v1.text.wordllama-3"
