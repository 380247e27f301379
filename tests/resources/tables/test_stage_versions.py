"""Versions of stage tables: the rows and digests of a whole write, for the bytes of what differs."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels.contracts import Contract, field
from mm_resources.cell import Cell
from mm_resources.storage import dataset_versions, lance_datasets, layout
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.store import Store
from mm_resources.tables.stage_refs import StageMeta, StageRef
from mm_resources.tables.stage_tables import META, StageTables
from mm_resources.tables.stage_writer import StageWriter

CONTRACT = Contract(
    "numbers",
    pa.schema(
        [
            field("key", pa.string(), "key", required=True),
            field("n", pa.int64(), "number"),
            field("words", pa.list_(pa.string()), "words"),
            field("run_id", pa.string(), "run that made the row"),
        ]
    ),
    key="key",
    digest=("key", "n"),
    makers=("run_id",),
)
Rows = dict[int, int]
NOW = timedelta(0)


def cell(version: str) -> Cell:
    return Cell("birds", version, "text")


def table(rows: Rows, run: str = "r") -> pa.Table:
    values = {
        "key": [f"k{key:05}" for key in rows],
        "n": list(rows.values()),
        "words": [[str(n)] for n in rows.values()],
    }
    return pa.table({**values, "run_id": [run] * len(rows)}, schema=CONTRACT.bare)


def meta(rows: int, **changed: Any) -> StageMeta:
    return StageMeta(
        **{
            **vars(StageMeta("d", "i", rows, rows, 0, 0, 0, "e", "", {}, "r", "2026-01-01T00:00:00+00:00")),
            **changed,
        }
    )


def publish(tables: StageTables, version: str, rows: Rows, *others: str, run: str = "r") -> StageRef:
    number = tables.fence("segments", cell(version))
    written = tables.write("segments", cell(version), CONTRACT, [table(rows, run)], map(cell, others))
    tables.commit("segments", cell(version), written, meta(written.rows, run_id=run), number)
    found = tables.state("segments", cell(version))
    assert found is not None
    return found


def content(tables: StageTables, version: str, at: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    rows = tables.read("segments", cell(version), ["key", "n", "words"], at=at).read_all()
    return rows.sort_by("key").to_pylist()


def plain(rows: Rows) -> list[dict[str, Any]]:
    return table(rows).select(["key", "n", "words"]).sort_by("key").to_pylist()


@pytest.fixture
def tables(tmp_path: Path) -> StageTables:
    return StageTables(Store(str(tmp_path)))


ROWS = {i: i for i in range(200)}


def test_a_version_costs_what_differs(tables: StageTables) -> None:
    first = publish(tables, "v1", ROWS)
    second = publish(tables, "v2", {**ROWS, 3: 30, 500: 1}, "v1", run="second")
    assert (second.table, second.base, second.gone, second.added) == (first.table, f"{first.table}@1", 1, 2)
    assert content(tables, "v2") == plain({**ROWS, 3: 30, 500: 1})
    assert content(tables, "v1") == plain(ROWS)
    made = tables.read("segments", cell("v2"), ["key", "run_id"]).read_all().to_pylist()
    assert {row["key"] for row in made if row["run_id"] == "second"} == {"k00003", "k00500"}
    same = publish(tables, "v3", ROWS, "v1", run="third")
    assert (same.table, same.lance_version) == (first.table, first.lance_version), "nothing is written"


def test_a_version_that_differs_in_much_is_written_whole(tables: StageTables) -> None:
    publish(tables, "v1", ROWS)
    other = publish(tables, "v2", {key: n + (key < 90) for key, n in ROWS.items()}, "v1")
    assert (other.table, other.base) == ("stages/segments/birds/v2/text.lance", "")


def test_versions_outlive_the_removal_of_all_that_no_tag_keeps(tables: StageTables) -> None:
    first = publish(tables, "v1", ROWS)
    publish(tables, "v2", {**ROWS, 3: 30}, "v1")
    publish(tables, "v1", {**ROWS, 4: 40})
    uri = tables.store.uri(first.table)
    dataset_versions.clean(uri, NOW)
    fresh = StageTables(tables.store)
    assert content(fresh, "v1", first.place) == plain(ROWS)
    assert content(fresh, "v2") == plain({**ROWS, 3: 30})
    assert content(fresh, "v1") == plain({**ROWS, 4: 40})


def test_a_damaged_base_is_none(tables: StageTables) -> None:
    first = publish(tables, "v1", ROWS)
    (file,) = Path(tables.store.uri(first.table)).glob("data/*.lance")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert publish(tables, "v2", ROWS, "v1").base == ""
    assert content(tables, "v2") == plain(ROWS)


def test_a_moved_store_keeps_every_version(tables: StageTables, tmp_path: Path) -> None:
    publish(tables, "v1", ROWS)
    publish(tables, "v2", {**ROWS, 3: 30}, "v1")
    (tmp_path / "stages").rename(tmp_path / "moved-stages")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "moved-stages").rename(moved / "stages")
    (tmp_path / "registry").rename(moved / "registry")
    there = StageTables(Store(str(moved)))
    assert content(there, "v2") == plain({**ROWS, 3: 30})
    assert publish(there, "v3", {**ROWS, 3: 31}, "v2").added == 1


def test_the_late_run_is_fenced_and_leaves_no_trace(tables: StageTables) -> None:
    publish(tables, "v1", ROWS)
    number = tables.fence("segments", cell("v1"))
    late = tables.write("segments", cell("v1"), CONTRACT, [table({**ROWS, 1: 11})])
    quick = publish(tables, "v1", {**ROWS, 2: 22})
    with pytest.raises(Fenced, match=r"segments of birds@v1\|text was published by another run"):
        tables.commit("segments", cell("v1"), late, meta(late.rows), number)
    assert tables.state("segments", cell("v1")) == quick
    assert content(tables, "v1") == plain({**ROWS, 2: 22})


def test_a_stage_out_of_date_has_its_rows_and_no_inputs(tables: StageTables) -> None:
    first = publish(tables, "v1", ROWS)
    tables.mark_stale("segments", cell("v1"))
    found = tables.state("segments", cell("v1"))
    assert found is not None
    assert (found.number, found.meta.inputs, found.lance_version) == (2, "", first.lance_version)


def write_earlier(store: Store, version: str, rows: Rows) -> str:
    """Publish a stage as a store of layout 2 has it: the schema's metadata say it."""
    store.write(layout.NAME, json.dumps({"layout": 2}).encode())
    uri = store.uri(f"stages/segments/birds/{version}/text.lance")
    schema = CONTRACT.bare.with_metadata({META: json.dumps(vars(meta(len(rows))))})
    lance_datasets.overwrite(
        uri, schema, table(rows).to_batches(), lance_datasets.fence(uri, schema), "before"
    )
    return uri


def test_a_store_of_before_is_read_and_carried_on(tables: StageTables) -> None:
    uri = write_earlier(tables.store, "v1", {1: 1})
    write_earlier(tables.store, "v1", ROWS)
    pinned = {"lance_version": 2}
    assert content(tables, "v1") == plain(ROWS)
    assert content(tables, "v1", pinned) == plain({1: 1})
    found = tables.state("segments", cell("v1"), pinned)
    assert found is not None
    assert (found.number, found.meta.rows) == (0, 1)
    assert not tables.store.names("registry/refs"), "reading writes nothing"
    second = publish(tables, "v2", {**ROWS, 3: 30}, "v1")
    assert (second.table, second.added) == ("stages/segments/birds/v1/text.lance", 1)
    assert layout.read_layout(tables.store) == 3
    first = tables.state("segments", cell("v1"))
    assert first is not None
    assert (first.number, first.lance_version, first.meta.rows) == (1, 3, 200)
    dataset_versions.clean(uri, NOW)
    fresh = StageTables(tables.store)
    assert content(fresh, "v1") == plain(ROWS)
    assert content(fresh, "v2") == plain({**ROWS, 3: 30})


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from(["v1", "v2", "v3"]),
        st.dictionaries(st.integers(0, 60), st.one_of(st.none(), st.integers(0, 3)), max_size=6),
    ),
    min_size=1,
    max_size=6,
)


def holds_whatever_the_path(folder: Path, steps: list[Any]) -> None:
    tables = StageTables(Store(str(folder)))
    rows, seen = {i: 0 for i in range(40)}, []
    for step, (version, other, changes) in enumerate(steps):
        rows = {**rows, **{key: n for key, n in changes.items() if n is not None}}
        rows = {key: n for key, n in rows.items() if changes.get(key, 0) is not None}
        number = tables.fence("segments", cell(version))
        written = tables.write("segments", cell(version), CONTRACT, [table(rows)], [cell(other)])
        whole = StageWriter(tables.store, CONTRACT, "whole").write(f"whole/{step}.lance", [table(rows)])
        assert (written.rows, written.digest) == (whole.rows, whole.digest)
        tables.commit("segments", cell(version), written, meta(written.rows), number)
        found = tables.state("segments", cell(version))
        assert found is not None
        seen.append((version, found.place, dict(rows)))
    for version, place, expected in seen:
        assert content(StageTables(tables.store), version, place) == plain(expected)


@settings(max_examples=5, deadline=None)
@given(CHANGES)
def test_any_sequence_gives_the_rows_of_whole_writes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    holds_whatever_the_path(tmp_path_factory.mktemp("lineage"), steps)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_many_sequences_give_the_rows_of_whole_writes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    holds_whatever_the_path(tmp_path_factory.mktemp("lineage"), steps)
