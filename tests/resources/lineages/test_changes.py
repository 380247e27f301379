"""Owners of changed rows: those that a comparison of all rows finds, whichever way two versions are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels.contracts import Contract, field
from mm_embed_kernels.sql import RowDigest
from mm_resources.lineages.changes import changed_owners
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import find_rows, read_rows
from mm_resources.storage.store import Store
from mm_resources.tables.stage_writer import StageWriter, WrittenRows

CONTRACT = Contract(
    "numbers",
    pa.schema(
        [
            field("key", pa.string(), "key", required=True),
            field("owner", pa.string(), "owner", required=True),
            field("n", pa.int64(), "number"),
            field("place", pa.string(), "where the number lies"),
            field("known", pa.string(), "stands in for the place"),
        ]
    ),
    key="key",
    digest=("key", "n", "place"),
    stand_ins=(("place", "known"),),
)
# Rows by number: two for each owner.
Rows = dict[int, int]
ROWS = {i: 0 for i in range(60)}
CHANGES = st.lists(
    st.dictionaries(st.integers(0, 69), st.one_of(st.none(), st.integers(0, 3)), max_size=8),
    min_size=1,
    max_size=5,
)


def table(rows: Rows) -> pa.Table:
    return pa.table(
        {
            "key": [f"k{key:03}" for key in rows],
            "owner": [owner_of(key) for key in rows],
            "n": list(rows.values()),
            "place": [str(key) for key in rows],
            "known": pa.nulls(len(rows), pa.string()),
        },
        schema=CONTRACT.bare,
    )


def owner_of(key: int) -> str:
    return f"o{key // 2}"


def write(store: Store, name: str, rows: Rows, base: WrittenRows | None = None) -> WrittenRows:
    bases = [(base.table, base.lance_version)] if base else []
    return StageWriter(store, CONTRACT, name).write(name, [table(rows)], bases)


def changed(store: Store, one: WrittenRows, other: WrittenRows) -> list[str]:
    places = [(each.table, each.lance_version) for each in (one, other)]
    found = changed_owners(store, places[0], places[1], "owner", ["key", "n"])
    assert found is not None
    return sorted(found.to_pylist())


def holds_whatever_the_versions(folder: Path, steps: list[dict[int, int | None]]) -> None:
    store, rows = Store(str(folder)), dict(ROWS)
    versions = [(rows, write(store, "a.lance", rows))]
    for number, changes in enumerate(steps):
        before, base = versions[-1]
        rows = {**before, **{key: n for key, n in changes.items() if n is not None}}
        rows = {key: n for key, n in rows.items() if changes.get(key, 0) is not None}
        owners = {owner_of(key) for key in {*before, *rows} if before.get(key) != rows.get(key)}
        # The rows of more owners than have changed may be written: they come and go as they were.
        some = owners | {owner_of(number)}
        part = {key: n for key, n in rows.items() if owner_of(key) in some}
        written = StageWriter(store, CONTRACT, "part").write_changes(
            (base.table, base.lance_version, base.digest),
            "b.lance",
            [table(part)],
            "owner",
            pa.array(sorted(some)),
        )
        whole = write(store, f"whole-{number}.lance", rows)
        assert (written.rows, written.digest) == (whole.rows, whole.digest)
        stored = lance_datasets.open_dataset(store.uri(written.table), written.lance_version)
        assert stored is not None
        assert stored.to_table().sort_by("key").equals(table(rows).sort_by("key").cast(stored.schema))
        assert changed(store, base, written) == sorted(owners)
        assert changed(store, base, whole) == sorted(owners)
        versions.append((rows, written))
    first, last = versions[0], versions[-1]
    differing = {owner_of(key) for key in {*first[0], *last[0]} if first[0].get(key) != last[0].get(key)}
    assert changed(store, first[1], last[1]) == changed(store, last[1], first[1]) == sorted(differing)


@settings(max_examples=5, deadline=None)
@given(CHANGES)
def test_any_sequence_finds_what_a_comparison_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    holds_whatever_the_versions(tmp_path_factory.mktemp("changes"), steps)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_many_sequences_find_what_a_comparison_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    holds_whatever_the_versions(tmp_path_factory.mktemp("changes"), steps)


def test_joined_fragments_change_nothing(tmp_path: Path) -> None:
    store, rows = Store(str(tmp_path)), dict(ROWS)
    base = first = write(store, "a.lance", rows)
    for step in range(12):
        rows = {**rows, 100 + step: step}
        base = write(store, "a.lance", rows, base)
        dataset = lance_datasets.open_dataset(store.uri(base.table), base.lance_version)
        assert dataset is not None
    assert len(dataset.get_fragments()) < 12, "the tail was joined"
    assert changed(store, first, base) == sorted({owner_of(100 + step) for step in range(12)})


def test_a_place_does_not_count_where_the_content_is_known(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = table({0: 0, 2: 0})
    moved = rows.set_column(3, "place", pa.array(["7", "8"]))
    known = pa.array(["same", None], pa.string())
    one, other = (each.set_column(4, "known", known) for each in (rows, moved))
    places = []
    for name, each in (("one.lance", one), ("other.lance", other)):
        written = StageWriter(store, CONTRACT, name).write(name, [each])
        places.append((written.table, written.lance_version))
    found = changed_owners(store, places[0], places[1], "owner", ["key", "place"], CONTRACT.stand_ins)
    assert found is not None
    assert found.to_pylist() == ["o1"]


@pytest.mark.parametrize("missing", ["table", "version", "column"])
def test_what_is_gone_gives_no_answer(tmp_path: Path, missing: str) -> None:
    store = Store(str(tmp_path))
    written = write(store, "a.lance", ROWS)
    before = {"table": ("b.lance", 1), "version": ("a.lance", 9), "column": ("a.lance", 1)}[missing]
    columns = ["key", "elsewhere"] if missing == "column" else ["key"]
    assert changed_owners(store, before, ("a.lance", written.lance_version), "owner", columns) is None


def test_rows_are_found_by_their_values(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    written = write(store, "a.lance", ROWS)
    dataset = lance_datasets.open_dataset(store.uri("a.lance"), written.lance_version)
    assert dataset is not None
    found = find_rows(dataset, "owner", pa.array(["o3", "o1", "absent"]))
    rows = read_rows(dataset, found, ["key"], with_ids=True).read_all()
    assert rows["key"].to_pylist() == ["k002", "k003", "k006", "k007"]
    assert rows["_rowid"].to_pylist() == found.tolist()
    assert find_rows(dataset, "owner", pa.array([], pa.string())).tolist() == []
    assert read_rows(dataset, found[:0], ["key"]).read_all().num_rows == 0


def test_a_digest_goes_on_where_another_ended() -> None:
    whole, part = RowDigest(CONTRACT.digest), RowDigest(CONTRACT.digest)
    part.update(table({1: 1, 2: 2, 3: 3}))
    resumed = RowDigest.resume(part.hexdigest(), CONTRACT.digest)
    resumed.remove(table({2: 2}))
    resumed.update(table({4: 4}))
    whole.update(table({1: 1, 3: 3, 4: 4}))
    assert resumed.hexdigest() == whole.hexdigest()
