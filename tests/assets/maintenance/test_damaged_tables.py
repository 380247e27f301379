"""A flipped bit in a stored table is found before its rows are published, and computed again."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.assets import feature_table
from mm_resources.maintenance.garbage_collection import collect
from mm_resources.maintenance.table_repair import repair_tables
from mm_resources.maintenance.table_verification import verify_tables
from mm_resources.storage import lance_datasets
from mm_resources.storage.file_hashes import DamagedFiles
from tests.assets.conftest import Platform, Run


@pytest.fixture
def mine(published_copy: Platform) -> Platform:
    return published_copy


def flip(file: Path) -> None:
    """Invert one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(bytes(data))


def files_of(platform: Platform, table: str) -> list[Path]:
    """The data files of a table's current version."""
    folder = Path(platform.settings.store) / table
    dataset = lance_datasets.open_dataset(str(folder))
    assert dataset is not None
    return [
        folder / "data" / file.path for fragment in dataset.get_fragments() for file in fragment.data_files()
    ]


def table_of(platform: Platform, pattern: str) -> str:
    (found,) = Path(platform.settings.store).glob(pattern)
    return str(found.relative_to(platform.settings.store))


def damaged(platform: Platform) -> set[str]:
    return {check.table for check in verify_tables(platform.store) if check.is_damaged}


def rows_of(platform: Platform) -> pa.Table:
    pin = platform.registry.pins.get(platform.cell("tiny@v1", "text"))
    assert pin is not None
    columns = ["feature_id", "sample_id", "label", "split", "text", "vector"]
    return platform.catalog.features.rows(pin, columns).read_all().sort_by("feature_id")


def doctor(mm: Run, platform: Platform, *words: str) -> tuple[int, Any]:
    places = {"MM_STORE": platform.settings.store, "DAGSTER_HOME": str(platform.settings.dagster_home)}
    done = mm("doctor", "--verify", *words, "--json", **places)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_all_files_of_a_published_store_are_verified(mine: Platform, mm: Run) -> None:
    code, found = doctor(mm, mine)
    assert (code, found["tables"]["unverified"], found["tables"]["bad"]) == (0, 0, [])
    assert found["tables"]["verified"] > 100


@pytest.mark.parametrize("stage", ["raw_assets", "segments", "normalized_features", "feature_table"])
def test_a_damaged_stage_ends_the_cell_and_is_mended(mine: Platform, mm: Run, stage: str) -> None:
    before, table = rows_of(mine), f"stages/{stage}/tiny/v1/text.lance"
    flip(files_of(mine, table)[0])
    mine.catalog.tables.mark_stale("feature_views", mine.cell("tiny@v1", "text"))
    if stage == "feature_table":
        result = mine.backfill("tiny@v1", "text")["text"]
        assert result.status == "failed"
        assert table.removesuffix(".lance") in result.reason
        assert "mm doctor --verify --mend" in result.reason
    code, found = doctor(mm, mine)
    assert code == 1
    assert {bad["table"] for bad in found["tables"]["bad"]} == {table}
    code, found = doctor(mm, mine, "--mend")
    assert (code, found["tables"]["mended"]) == (0, True), found
    assert damaged(mine) == set()
    assert rows_of(mine).equals(before)
    pin = mine.registry.pins.get(mine.cell("tiny@v1", "text"), 1)
    assert pin is not None
    assert mine.catalog.tables.read(stage, pin.cell, at=pin.place(stage)).read_all()


def test_a_damaged_feature_table_is_found_and_mended(mine: Platform, mm: Run) -> None:
    before = rows_of(mine)
    first = mine.registry.pins.get(mine.cell("tiny@v1", "text"))
    assert first is not None
    table = f"features/{first.primary.table}.lance"
    flip(files_of(mine, table)[0])
    assert damaged(mine) == {table}
    code, found = doctor(mm, mine, "--mend")
    assert (code, found["tables"]["mended"]) == (0, True), found
    assert rows_of(mine).equals(before)
    pins = [mine.registry.pins.get(first.cell, number) for number in mine.registry.pins.numbers(first.cell)]
    assert len(pins) == 2
    assert {pin.primary.digest for pin in pins if pin} == {first.primary.digest}
    assert {pin.primary.lance_version for pin in pins if pin} == {pins[-1].primary.lance_version}  # type: ignore[union-attr]


def test_a_damaged_index_is_found_and_built_again(mine: Platform, mm: Run) -> None:
    pin = mine.registry.pins.get(mine.cell("tiny@v1", "text"))
    assert pin is not None
    folder = Path(mine.settings.store) / f"features/{pin.primary.table}.lance/_indices"
    flip(max(folder.rglob("*.lance"), key=lambda file: file.stat().st_size))
    assert damaged(mine) == {f"features/{pin.primary.table}.lance"}
    code, found = doctor(mm, mine, "--mend")
    assert (code, found["tables"]["mended"]) == (0, True), found
    hits = mine.features.search("espresso", modality="text", mode="text", verify=True)
    assert hits["key"].to_pylist() == ["s2"]


def test_a_mend_that_is_killed_is_completed_by_the_next(mine: Platform, mm: Run) -> None:
    """Killed before the backfill, and before the pins are moved."""
    before, table = rows_of(mine), "stages/segments/tiny/v1/text.lance"
    flip(files_of(mine, table)[0])
    repair_tables(mine.catalog, verify_tables(mine.store))
    assert damaged(mine) == {table}
    assert mine.backfill("tiny@v1", "text")["text"].status == "published"
    assert damaged(mine) == {table}, "the version that the pin names"
    code, found = doctor(mm, mine, "--mend")
    assert (code, found["tables"]["mended"]) == (0, True), found
    assert rows_of(mine).equals(before)


def test_what_cannot_be_computed_is_named(mine: Platform, mm: Run) -> None:
    ledger, listing = "ledger/stages.lance", table_of(mine, "registry/listings/tiny/v1/sentences*.lance")
    for table in (ledger, listing):
        flip(files_of(mine, table)[0])
    code, found = doctor(mm, mine, "--mend")
    assert (code, found["tables"]["mended"]) == (1, False)
    assert {bad["table"] for bad in found["tables"]["bad"]} == {ledger, listing}
    assert damaged(mine) == {listing}, (
        "rows of the ledger are removed, a listing stays for a backup to replace"
    )
    result = mine.backfill("tiny@v1", "text", dagster=True)["text"]
    assert result.status == "failed"
    assert "listing of tiny@v1, source sentences" in result.reason


def test_damaged_vectors_in_the_cache_are_computed_again_by_the_cell(mine: Platform) -> None:
    before = rows_of(mine)
    table = table_of(mine, "cache/embed-minilm/*.lance")
    flip(files_of(mine, table)[0])
    mine.catalog.tables.mark_stale("feature_table", mine.cell("tiny@v1", "text"))
    result = mine.backfill("tiny@v1", "text")["text"]
    assert result.status == "published"
    assert [rows for kernel, rows in result.computed.items() if kernel.startswith("embed")] == [2]
    assert rows_of(mine).equals(before)
    assert damaged(mine) == set()


@pytest.mark.parametrize("kind", ["probe-text", "segment-text", "embed-minilm"])
def test_doctor_mends_the_cache(mine: Platform, mm: Run, kind: str) -> None:
    before, table = rows_of(mine), table_of(mine, f"cache/{kind}/*.lance")
    dataset = lance_datasets.open_dataset(mine.store.uri(table))
    assert dataset is not None
    rows = dataset.count_rows()
    flip(files_of(mine, table)[0])
    assert damaged(mine) == {table}
    code, _ = doctor(mm, mine, "--mend")
    assert code == 0
    dataset = lance_datasets.open_dataset(mine.store.uri(table))
    assert dataset is not None
    assert dataset.count_rows() == rows
    assert rows_of(mine).equals(before)


def test_a_damaged_manifest_is_restored_from_its_copy(mine: Platform, mm: Run) -> None:
    table = "stages/segments/tiny/v1/text.lance"
    latest = sorted((Path(mine.settings.store) / table / "_versions").glob("*.manifest"))[0]
    sound = latest.read_bytes()
    latest.write_bytes(sound[: len(sound) // 2])
    code, _ = doctor(mm, mine, "--mend")
    assert code == 0
    assert latest.read_bytes() == sound


def test_the_index_of_blobs_is_restored_from_the_cells(mine: Platform, mm: Run) -> None:
    before = {row["content_hash"] for row in mine.catalog.blobs.index.rows().read_all().to_pylist()}
    for file in files_of(mine, "blobs/index.lance"):
        flip(file)
    code, _ = doctor(mm, mine, "--mend")
    assert code == 0
    assert {row["content_hash"] for row in mine.catalog.blobs.index.rows().read_all().to_pylist()} == before


def test_readers_verify_on_request_and_the_shuffled_loader_by_default(mine: Platform) -> None:
    cell = mine.cell("tiny@v1", "text")
    pin = mine.registry.pins.get(cell)
    assert pin is not None
    flip(files_of(mine, f"features/{pin.primary.table}.lance")[0])
    with pytest.raises(DamagedFiles, match="mm doctor --verify --mend"):
        mine.features.search("a cat", modality="text", verify=True)
    with pytest.raises(DamagedFiles, match=pin.primary.table):
        mine.features.training_set("tiny@v1", modality="text", verify=True)
    rows = mine.features.training_set("tiny@v1", modality="text")
    with pytest.raises(DamagedFiles):
        rows.to_torch(batch_size=1, shuffle=True)
    rows.to_torch(batch_size=1, shuffle=True, verify=False)


def test_gc_condemns_nothing_while_references_are_damaged(mine: Platform) -> None:
    flip(files_of(mine, "stages/raw_assets/tiny/v1/text.lance")[0])
    with pytest.raises(DamagedFiles, match="raw_assets"):
        collect(mine.catalog, timedelta(0))


def test_files_without_hashes_are_read_and_counted(mine: Platform, mm: Run) -> None:
    shutil.rmtree(Path(mine.settings.store) / "stages/segments/tiny/v1/text.lance/_hashes")
    code, found = doctor(mm, mine)
    assert (code, found["tables"]["bad"]) == (0, [])
    assert found["tables"]["unverified"] == 2, "data file and manifest of the current version"
    assert mine.backfill("tiny@v1", "text")["text"].status == "unchanged"


def test_audit_mends_wrong_vectors_of_an_older_store(
    mine: Platform, mm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store without hashes: the wrong vector was served, and is found by computing it from its blob."""
    before = rows_of(mine)
    for folder in Path(mine.settings.store).rglob("_hashes"):
        shutil.rmtree(folder)
    cell = mine.cell("tiny@v1", "text")
    dataset = lance_datasets.open_dataset(mine.store.uri(table_of(mine, "cache/embed-minilm/*.lance")))
    assert dataset is not None
    vectors = dataset.to_table(columns=["key", "vector"])
    turned = np.roll(np.stack(vectors["vector"].to_numpy(zero_copy_only=False)), 1, axis=1)
    for key, vector in zip(vectors["key"].to_pylist(), turned, strict=True):
        dataset.update({"vector": str(vector.tolist())}, where=f"key = '{key}'")
    for stage in ("feature_table", "feature_views"):
        mine.catalog.tables.mark_stale(stage, cell)
    with monkeypatch.context() as patched:
        # As an older version did, which had no base whose vectors stay.
        patched.setattr(feature_table, "bases_of", lambda *_: [])
        assert mine.backfill("tiny@v1", "text")["text"].status == "published"
    assert not rows_of(mine).equals(before), "without hashes the wrong vectors are published"

    places = {"MM_STORE": mine.settings.store, "DAGSTER_HOME": str(mine.settings.dagster_home)}
    found = mm("audit", "tiny@v1", "--modality", "text", "--json", **places)
    assert found.returncode == 1, found.stderr
    mended = mm("audit", "tiny@v1", "--modality", "text", "--mend", "--json", **places)
    assert mended.returncode == 0, mended.stderr
    assert [table["wrong"] for table in json.loads(mended.stdout)] == [[]]
    assert rows_of(mine).equals(before)
