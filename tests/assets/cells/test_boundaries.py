"""What a stage reads is held against its contract: once in a run where it is sound, by every reader where it is not."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import Contract
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets

BEHIND_SEGMENTS = ("embeddings", "normalized_features", "feature_table", "feature_views", "lineage_report")


@pytest.fixture
def mine(platform: Any, dataset: Path) -> Any:
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "text")["text"].status == "published"
    return platform


def tamper(platform: Any, cell: Cell, asset: str, column: str, value: str) -> None:
    """Replace a value of the first row of a stage's table, as another program would that writes into the store."""
    tables = platform.catalog.tables
    uri, ref = tables.uri(asset, cell), tables.state(asset, cell)
    dataset = lance_datasets.open_dataset(uri, ref.lance_version)
    table = dataset.to_table()
    values = pa.array([value, *table[column].to_pylist()[1:]], table[column].type)
    changed = table.set_column(table.schema.get_field_index(column), column, values)
    rows, head = changed.cast(dataset.schema).to_batches(), lance_datasets.fence(uri, dataset.schema)
    version = lance_datasets.overwrite(uri, dataset.schema, rows, head, "by another program")
    tables.refs.replace(asset, cell, replace(ref, lance_version=version))


def test_every_stage_that_reads_a_broken_row_says_so(mine: Any) -> None:
    cell = mine.cell("tiny@v1", "text")
    tamper(mine, cell, "segments", "segment_id", "no id at all")
    for asset in BEHIND_SEGMENTS:
        shutil.rmtree(Path(mine.settings.store) / "stages" / asset)
    mine.backfill("tiny@v1", "text")
    events = mine.catalog.failures.read(cell).read_all().to_pylist()
    broken = [event for event in events if event["error_class"] == "contract_violation"]
    assert Counter(event["stage"] for event in broken) == {"embeddings": 1, "normalized_features": 1}
    assert all("segment_id=no id at all" in event["message"] for event in broken)
    kept = mine.catalog.tables.read("embeddings", cell, ["segment_id"]).read_all()["segment_id"].to_pylist()
    assert "no id at all" not in kept


def test_a_sound_version_is_looked_through_once_in_a_run(
    platform: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: Counter[tuple[str, str]] = Counter()
    violations = Contract.violations

    def counted(self: Contract, table: pa.Table) -> dict[int, str]:
        looked.update((self.name, name) for name in table.column_names)
        return violations(self, table)

    monkeypatch.setattr(Contract, "violations", counted)
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "text")["text"].status == "published"
    # Five times by two stages, in two to seven of its columns.
    of_segments = {name: times for (contract, name), times in looked.items() if contract == "segments"}
    assert of_segments == dict.fromkeys(
        platform.catalog.tables.read("segments", platform.cell("tiny@v1", "text")).schema.names, 1
    )
    looked.clear()
    dataset.write_text(dataset.read_text().replace("version: v1", "version: v2"))
    platform.register(dataset)
    assert platform.backfill("tiny@v2", "text")["text"].status == "published"
    assert looked["segments", "segment_id"] == 1, "another run, another version: looked at anew"
