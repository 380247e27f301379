"""Upkeep keeps the versions that a reader can request, and no others."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import RAW_ASSETS
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import CacheSpace
from mm_resources.features import vector_indexes
from mm_resources.maintenance.upkeep import upkeep
from mm_resources.registry.pins import Pin
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.tables.stage_refs import StageMeta, StageRef, ref_tag
from tests.resources.compute.test_cache import Lengths
from tests.resources.features.test_feature_tables import CONTRACT, table
from tests.resources.specs import freeze, spec_of

NOW = timedelta(0)


def publish(catalog: Catalog, cell: Cell, messages: list[str]) -> StageRef:
    """Publish a stage with failures, as an asset does; return its ref."""
    tables, failures = catalog.tables, catalog.failures
    number = tables.fence("raw_assets", cell)
    ids = [f"{i:032x}" for i in range(20 + number)]
    rows = tables.write("raw_assets", cell, RAW_ASSETS, [pa.table({"sample_id": ids})])
    events = [
        {"error_class": "not_found", "message": message, "sample_id": f"{i:032x}"}
        for i, message in enumerate(messages)
    ]
    written = failures.write("raw_assets", cell, "run", events)
    meta = StageMeta(
        "d", "i", 0, 0, written.events, 0, written.version, "e", "", {}, "run", datetime.now(UTC).isoformat()
    )
    tables.commit("raw_assets", cell, rows, meta, number)
    state = tables.state("raw_assets", cell)
    assert state is not None
    return state


def messages(catalog: Catalog, cell: Cell) -> list[str]:
    return catalog.failures.read(cell, ["message"]).read_all()["message"].to_pylist()


@pytest.fixture
def cell(catalog: Catalog, tmp_path: Path) -> Cell:
    (tmp_path / "a.txt").write_text("a")
    freeze(catalog.registry, spec_of({"uri": str(tmp_path / "a.txt")}))
    return Cell("birds", "v1", "text")


def test_what_a_pin_names_stays(catalog: Catalog, cell: Cell) -> None:
    tables, failures = catalog.tables, catalog.failures
    first = publish(catalog, cell, ["pinned"])
    stages = {"raw_assets": {"data_version": "d", **first.place, "run_id": "run", "at": first.meta.at}}
    pin = Pin(1, "birds", "v1", "text", "run", first.meta.at, "d", [], {}, stages)
    catalog.registry.pins.publish(cell, pin)
    second = publish(catalog, cell, ["between"])
    publish(catalog, cell, ["now"])
    upkeep(catalog, NOW)
    assert messages(catalog, cell) == ["now"]
    assert tables.state("raw_assets", cell, pin.place("raw_assets")) == first
    assert tables.read("raw_assets", cell, at=pin.place("raw_assets")).read_all().num_rows == 21
    assert tables.read("raw_assets", cell).read_all().num_rows == 23
    kept = lance_datasets.open_dataset(failures._uri("raw_assets", cell), first.meta.failures)
    assert kept is not None
    assert kept.to_table()["message"].to_pylist() == ["pinned"]
    with pytest.raises(FileNotFoundError):
        tables.refs.get("raw_assets", cell, second.number)
    uri = catalog.store.uri(second.table)
    assert lance_datasets.open_dataset(uri, second.lance_version) is None, "no pin names it"
    assert lance_datasets.open_dataset(failures._uri("raw_assets", cell), second.meta.failures) is None


def test_a_ref_that_was_superseded_recently_stays(catalog: Catalog, cell: Cell) -> None:
    """A run that reads it now may publish a pin that names it."""
    first = publish(catalog, cell, [])
    publish(catalog, cell, [])
    upkeep(catalog, timedelta(days=1))
    assert catalog.tables.refs.get("raw_assets", cell, 1) == first
    assert catalog.tables.read("raw_assets", cell, at=first.place).read_all().num_rows == 21


def test_rows_that_a_killed_run_left_go(catalog: Catalog, cell: Cell) -> None:
    """Tagged, and without a ref: the next run of that number publishes, and another version is left."""
    publish(catalog, cell, [])
    rows = catalog.tables.write("raw_assets", cell, RAW_ASSETS, [pa.table({"sample_id": ["f" * 32]})])
    uri = catalog.store.uri(rows.table)
    dataset_versions.tag(uri, rows.lance_version, ref_tag(cell, 2, rows.lance_version))
    upkeep(catalog, NOW)
    assert lance_datasets.open_dataset(uri, rows.lance_version) is not None, "a run may be about to name it"
    last = publish(catalog, cell, [])
    upkeep(catalog, NOW)
    opened = lance_datasets.open_dataset(uri)
    assert opened is not None
    assert list(opened.tags.list()) == [last.tag]
    assert catalog.tables.read("raw_assets", cell).read_all().num_rows == 22


def test_failures_that_a_killed_run_left_do_not_cost_those_that_count(catalog: Catalog, cell: Cell) -> None:
    publish(catalog, cell, ["counts"])
    catalog.failures.write(
        "raw_assets", cell, "killed", [{"error_class": "not_found", "message": "never committed"}]
    )
    upkeep(catalog, NOW)
    assert messages(catalog, cell) == ["counts"]


def test_a_cache_keeps_one_row_for_each_key(catalog: Catalog) -> None:
    space = CacheSpace(catalog.store, Lengths())
    rows = [
        {"key": key, "status": "ok", "retryable": False, "length": len(key), "seconds": 0.0}
        for key in ("a", "b", "c")
    ]
    failed = [{"key": "d", "status": "failed", "error_class": "x", "retryable": True, "seconds": 0.0}]
    for part in (rows, rows[:2], failed, rows, [{**rows[0], "key": "d"}]):
        space.append(pa.Table.from_pylist(part, schema=Lengths().result), {})
    before = space.reader().read_all().sort_by("key")
    (done,) = [part for part in upkeep(catalog, NOW) if part.part == "cache"]
    assert done.doubles == 6
    stored = lance_datasets.open_dataset(space.uri)
    assert stored is not None
    assert stored.count_rows() == 4
    after = space.reader().read_all().sort_by("key")
    assert after["key"].to_pylist() == ["a", "b", "c", "d"]
    assert after.to_pylist() == before.to_pylist()


def test_unfinished_objects_go_when_they_are_old(catalog: Catalog) -> None:
    for name in (
        "blobs/incoming/0123",
        "blobs/packs/.tmp-abc",
        "registry/pins/birds/v1/text/.tmp-x",
        "blobs/packs/good.pack",
    ):
        catalog.store.write(name, b"half")
    upkeep(catalog, timedelta(days=1))
    assert catalog.store.entry("blobs/incoming/0123")
    old = time.time() - 2 * 86_400
    for name in ("blobs/incoming/0123", "blobs/packs/.tmp-abc", "blobs/packs/good.pack"):
        os.utime(catalog.store.path(name), (old, old))
    upkeep(catalog, timedelta(days=1))
    assert not catalog.store.entry("blobs/incoming/0123")
    assert catalog.store.names("blobs/packs") == ["good.pack"]
    assert catalog.store.entry("registry/pins/birds/v1/text/.tmp-x"), "it is young"


def test_hashes_of_a_superseded_index_go(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in a folder of their own for each index."""
    monkeypatch.setattr(vector_indexes, "EXACT_ROWS", 1_000)
    for seed in range(2):
        catalog.features.write_candidate("t", CONTRACT, [table(1_500, seed)])
    hashes = Path(catalog.store.path("features/t.lance/_hashes/_indices"))
    before = sorted(path.name for path in hashes.iterdir() if any(path.iterdir()))
    assert len(before) > 1
    dataset_versions.clean(catalog.store.uri("features/t.lance"), NOW)
    kept = sorted(path.name for path in hashes.iterdir() if any(path.iterdir()))
    indexes = os.listdir(catalog.store.path("features/t.lance/_indices"))
    assert kept == sorted(name for name in indexes if name in before)
    assert len(kept) < len(before)
    assert catalog.features.has(
        "t", lance_datasets.fence(catalog.store.uri("features/t.lance"), CONTRACT.bare)
    )
