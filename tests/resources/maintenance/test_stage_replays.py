"""Forgetting in stage tables that versions share: no file keeps a row, and every other row of each version stays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import RAW_ASSETS
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.ledger.accounting import Accounting
from mm_resources.maintenance import forgetting, pin_updates
from mm_resources.maintenance.forgetting import forget
from mm_resources.registry.pins import Pin
from mm_resources.tables.stage_refs import StageMeta, StageRef
from tests.resources.specs import freeze, spec_of

SAMPLES = range(40)
GONE = f"{7:032x}"


def cell(version: str) -> Cell:
    return Cell("birds", version, "text")


def row(number: int, content: int) -> dict[str, Any]:
    name = f"{number:032x}"
    return {
        "sample_id": name, "dataset": "birds", "version": "v1", "source": "s", "key": str(number), "source_uri": f"/{number}",
        "entity_id": name, "status": "fetched", "content_hash": f"{content + 1000:064x}", "modified_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip


def publish(catalog: Catalog, version: str, contents: dict[int, int], failed: int = 0) -> StageRef:
    """Publish a stage; the version's base is the first one."""
    tables, own = catalog.tables, cell(version)
    number = tables.fence("raw_assets", own)
    table = pa.Table.from_pylist([row(*each) for each in contents.items()], schema=RAW_ASSETS.bare)
    written = tables.write("raw_assets", own, RAW_ASSETS, [table], [cell("v1")])
    events = [
        {"error_class": "not_found", "message": "m", "sample_id": f"{each:032x}"} for each in range(failed)
    ]
    counted = catalog.failures.write("raw_assets", own, "run", events)
    meta = StageMeta(
        "d", "i", written.rows, written.rows, counted.events, 0, counted.version, "e", "", {}, "run", datetime.now(UTC).isoformat()
    )  # fmt: skip
    tables.commit("raw_assets", own, written, meta, number)
    found = tables.state("raw_assets", own)
    assert found is not None
    return found


def pin(catalog: Catalog, version: str, ref: StageRef, number: int = 1) -> Pin:
    stages = {"raw_assets": {"data_version": "d", **ref.place, "run_id": "run", "at": ref.meta.at}}
    made = Pin(number, "birds", version, "text", "run", ref.meta.at, "d", [], {}, stages)
    catalog.registry.pins.publish(cell(version), made)
    return made


def contents(catalog: Catalog, version: str, at: dict[str, Any] | None = None) -> dict[str, str]:
    rows = catalog.tables.read("raw_assets", cell(version), ["sample_id", "content_hash"], at=at).read_all()
    return dict(zip(rows["sample_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))


def expected(of: dict[int, int]) -> dict[str, str]:
    return {row(*each)["sample_id"]: row(*each)["content_hash"] for each in of.items() if each[0] != 7}


V1 = {i: i for i in SAMPLES}
V1_AGAIN = {**V1, 3: 300}
V2 = {**V1, 5: 500, 90: 90}


@pytest.fixture
def shared(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Three publishes in one table: v1, pinned; v2, which has lost the sample; v1 again, superseding."""
    (tmp_path / "a.txt").write_text("a")
    for version in ("v1", "v2"):
        freeze(catalog.registry, spec_of({"uri": str(tmp_path / "a.txt")}, version=version))
    # The pin names a stage alone, so that there is nothing to account.
    monkeypatch.setattr(pin_updates, "account", lambda *_: Accounting())
    monkeypatch.setattr(FeatureTables, "rows", lambda *_: None)
    first = publish(catalog, "v1", V1, failed=9)
    pin(catalog, "v1", first)
    second = publish(catalog, "v2", {key: n for key, n in V2.items() if key != 7})
    third = publish(catalog, "v1", V1_AGAIN, failed=9)
    assert {first.table, second.table, third.table} == {"stages/raw_assets/birds/v1/text.lance"}
    return catalog


def assert_forgotten(catalog: Catalog) -> None:
    pinned = catalog.registry.pins.get(cell("v1"))
    assert pinned is not None
    assert contents(catalog, "v1") == expected(V1_AGAIN)
    assert contents(catalog, "v2") == expected(V2)
    assert contents(catalog, "v1", pinned.place("raw_assets")) == expected(V1)
    state = catalog.tables.state("raw_assets", cell("v1"))
    assert state is not None
    assert (state.meta.rows, state.meta.failed, state.meta.inputs) == (39, 8, "")
    failed = catalog.failures.read(cell("v1"), ["sample_id"], ["raw_assets"]).read_all()
    assert sorted(failed["sample_id"].to_pylist()) == [f"{i:032x}" for i in range(9) if i != 7]
    held = [
        path
        for path in Path(catalog.store.root).rglob("*")
        if path.is_file() and GONE.encode() in path.read_bytes()
    ]
    assert {path.parent.name for path in held} <= {"forgotten"}, "the receipt alone names it"


def test_no_file_keeps_a_row(shared: Catalog) -> None:
    receipt = forget(shared, GONE)
    assert receipt.samples == [GONE]
    assert_forgotten(Catalog(shared.store))
    again = publish(Catalog(shared.store), "v1", V1_AGAIN)
    assert again.table == "stages/raw_assets/birds/v1/text-2.lance", "the name of before is never used again"


@pytest.mark.parametrize(
    "step", ["replay_stages", "move_refs", "move_pins", "remove_replayed_stages", "_remove_superseded"]
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_forgetting_that_is_cut_off_is_completed(
    shared: Catalog, monkeypatch: pytest.MonkeyPatch, step: str, side: str
) -> None:
    real = getattr(forgetting, step)

    def cut(*args: Any) -> None:
        if side == "after":
            real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, step, cut)
        with pytest.raises(KeyboardInterrupt):
            forget(shared, GONE)
    forget(Catalog(shared.store), GONE)
    assert_forgotten(Catalog(shared.store))


def test_a_sample_that_only_a_deleted_row_names_is_found(catalog: Catalog, tmp_path: Path) -> None:
    """Its version is gone, and its row is still in a file of the table."""
    (tmp_path / "a.txt").write_text("a")
    freeze(catalog.registry, spec_of({"uri": str(tmp_path / "a.txt")}))
    publish(catalog, "v1", V1)
    publish(catalog, "v1", {key: n for key, n in V1.items() if key != 7})
    assert forget(catalog, GONE).samples == [GONE]
    assert not any(
        GONE.encode() in path.read_bytes()
        for path in Path(catalog.store.root, "stages").rglob("*")
        if path.is_file()
    )
