"""Versions on top of a base: equal to a whole write, whatever the base; bounds, tails, races."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.features import vector_indexes
from mm_resources.features.feature_tables import Candidate, FeatureTables
from mm_resources.features.versions import MAKER, VersionWriter
from mm_resources.lineages import commits
from mm_resources.lineages.bounds import BOUNDS, Bounds, tail_of
from mm_resources.lineages.differences import COMPUTED_AT, Numbers
from mm_resources.registry.pins import PinnedTable
from mm_resources.storage import dataset_versions
from mm_resources.storage.file_hashes import check_files
from mm_resources.storage.table_files import owners_of

DIMENSION = 16
CONTRACT = feature_contract(DIMENSION, [pa.field("user__stars", pa.int64())])
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# A difference of any size is worth it.
ANY = Bounds(difference=10, dead=10, apart=10)
Sample = tuple[int, str, str | None]


class Rows:
    """Feature rows of samples: each with a content, on which text and vector depend, and a label."""

    def __init__(self, samples: dict[int, Sample], version: str, made: int = 0, computed: int = 0) -> None:
        self.samples, self.version = samples, version
        self.made, self.computed = BEGIN + timedelta(days=made), BEGIN + timedelta(days=computed)

    def bare_rows(self) -> Iterator[pa.Table]:
        table = self._table().drop(["vector"])
        at = pa.array([self.computed] * table.num_rows, pa.timestamp("us", tz="UTC"))
        # In two batches, so that numbers of rows go on over their border.
        whole = table.append_column(COMPUTED_AT, at)
        yield whole.slice(0, 3)
        yield whole.slice(3)

    def rows(self, numbers: Numbers | None = None) -> Iterator[pa.Table]:
        table = self._table()
        yield table if numbers is None else table.take(pa.array(numbers))

    def _table(self) -> pa.Table:
        rows = [self._row(key, *sample) for key, sample in sorted(self.samples.items())]
        return CONTRACT.rows(rows)

    def _row(self, key: int, content: int, label: str, text: str | None) -> dict[str, Any]:
        vector = np.random.default_rng([key, content]).standard_normal(DIMENSION).astype(np.float32)
        vector /= np.linalg.norm(vector)
        name = digest("row", str(key), str(content))
        sample = digest("sample", str(key))[:32]
        return {
            "feature_id": name[:32], "segment_id": name[:32], "sample_id": sample, "entity_id": sample,
            "dataset": "d", "version": self.version, "modality": "text", "content_hash": name, "source_uri": "/x",
            "key": str(key), "span": "full", "embedder": "e", "fingerprint": "f" * 64, "weights_hash": "w",
            "preprocessing": "{}", "label": label, "split": "train", "quality_score": 0.5, "passed": ["a"],
            "partial": False, "text": text, "mime": "text/plain", "run_id": f"run of {self.version}",
            "created_at": self.made, "user__stars": key % 5, "vector": vector.tolist(),
        }  # fmt: skip


def samples(count: int, content: int = 0) -> dict[int, Sample]:
    return {key: (content, "a", f"words of {key} in {content}") for key in range(count)}


def pinned(features: FeatureTables, found: Candidate, tag: str) -> PinnedTable:
    """Publish a candidate as far as later versions need it: tagged, and named by what a pin holds."""
    features.tag(found.table, found.lance_version, tag)
    return PinnedTable(
        embedder="e", settings={}, fingerprint="f" * 64, weights_hash="w", preprocessing={}, primary=True,
        table=found.table, lance_version=found.lance_version, tag=tag, rows=found.rows, dimension=DIMENSION,
        space="s", index=found.index, digest=found.digest, recall=1.0,
    )  # fmt: skip


def content(features: FeatureTables, table: str, version: int) -> list[dict[str, Any]]:
    """The rows of a version, sorted, without the columns that name their makers."""
    rows = features.dataset(table, version).to_table().drop(list(MAKER))
    return sorted(rows.to_pylist(), key=lambda row: str(row["feature_id"]))


def words(features: FeatureTables, table: str, version: int, text: str) -> set[str]:
    """The keys of the samples that a full-text search finds."""
    found = features.dataset(table, version).to_table(full_text_query=text, columns=["key"])
    return set(found["key"].to_pylist())


@pytest.fixture
def features(tmp_path: Path) -> FeatureTables:
    return Catalog.open(tmp_path).features


def write(
    features: FeatureTables, name: str, rows: Rows, *bases: PinnedTable, bounds: Bounds = ANY
) -> Candidate:
    return VersionWriter(features, bounds=bounds).write(name, CONTRACT, rows, bases)


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "alter", "label", "again"]),
        st.lists(st.integers(0, 24), min_size=1, max_size=6),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=6,
)


@given(changes=_CHANGES)
@settings(max_examples=settings().max_examples // 3)
def test_a_version_equals_a_whole_write(
    changes: list[tuple[str, list[int], int]], tmp_path_factory: Any
) -> None:
    """Of any chain or tree of changes: the base of each is any earlier version, newer ones too."""
    features = Catalog.open(tmp_path_factory.mktemp("versions")).features
    found = write(features, "t", Rows(samples(12), "v0"))
    known = [(pinned(features, found, "v0"), samples(12))]
    for number, (kind, keys, base) in enumerate(changes, 1):
        table, before = known[base % len(known)]
        after = dict(before)
        for key in keys:
            _, label, _ = after.get(key, (0, "a", None))
            if kind in ("add", "alter"):
                after[key] = (number, label, f"words of {key} in {number}")
            elif kind == "remove":
                after.pop(key, None)
            elif kind == "label" and key in after:
                after[key] = (after[key][0], f"label {number}", after[key][2])
        rows = Rows(after, f"v{number}", number)
        made = write(features, f"own-{number}", rows, table)
        whole = features.write_candidate(f"whole-{number}", CONTRACT, rows.rows())
        assert (made.rows, made.index, made.digest) == (whole.rows, whole.index, whole.digest)
        assert features.measure(made.table, made.lance_version) == (whole.rows, whole.digest)
        known.append((pinned(features, made, f"v{number}"), after))
        for place in (number, base % len(known)):
            entry, expected = known[place]
            plain = content(features, entry.table, entry.lance_version)
            assert plain == sorted(
                (
                    {k: v for k, v in row.items() if k not in MAKER}
                    for table in Rows(expected, "").rows()
                    for row in table.to_pylist()
                ),
                key=lambda row: str(row["feature_id"]),
            )
        if after:
            assert words(features, made.table, made.lance_version, "words") == {
                str(key) for key, (_, _, text) in after.items() if text
            }


def test_a_small_difference_is_a_version_of_the_same_table(features: FeatureTables) -> None:
    first = pinned(features, write(features, "t", Rows(samples(500), "v1")), "v1")
    before = set(Path(features.uri("t")).rglob("*"))
    rows = samples(500) | {key: (1, "a", f"words of {key} in new") for key in (3, 700)}
    del rows[8]
    second = write(features, "own", Rows(rows, "v2", 1), first, bounds=BOUNDS)
    assert (second.table, second.rows) == ("t", 500)
    assert before <= set(Path(features.uri("t")).rglob("*")), "no file of the first version is touched"
    made = features.dataset("t", second.lance_version)
    by_maker = {}
    for row in made.to_table(columns=["version", "key"]).to_pylist():
        by_maker.setdefault(row["version"], []).append(row["key"])
    assert sorted(by_maker["v2"]) == ["3", "700"]
    assert len(by_maker["v1"]) == 498
    assert words(features, "t", second.lance_version, "new") == {"3", "700"}
    assert words(features, "t", first.lance_version, "new") == set()
    checked = check_files(made.uri, owners_of(made))
    assert (checked.unverified, checked.damaged) == ([], {})


def test_the_same_rows_are_the_base_itself(features: FeatureTables) -> None:
    first = pinned(features, write(features, "t", Rows(samples(30), "v1")), "v1")
    again = write(features, "own", Rows(samples(30), "v2", 5), first)
    assert (again.table, again.lance_version, again.digest) == ("t", first.lance_version, first.digest)


def test_a_vector_that_was_computed_since_is_written(features: FeatureTables) -> None:
    first = pinned(features, write(features, "t", Rows(samples(30), "v1", made=3)), "v1")
    again = write(features, "own", Rows(samples(30), "v2", made=5, computed=4), first)
    assert set(features.dataset("t", again.lance_version).to_table()["version"].to_pylist()) == {"v2"}
    assert again.digest == first.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: dataclasses.replace(table, index="IVF_SQ"), "another index"),
        (lambda table: dataclasses.replace(table, lance_version=99), ""),
    ],
)
def test_another_index_and_a_lost_base_are_written_whole(
    features: FeatureTables, change: Any, reason: str
) -> None:
    first = pinned(features, write(features, "t", Rows(samples(30), "v1")), "v1")
    told: list[str] = []
    found = VersionWriter(features, told.append, ANY).write(
        "own", CONTRACT, Rows(samples(31), "v2"), [change(first)]
    )
    assert (found.table, found.rows) == ("own", 31)
    assert reason in " ".join(told)


def test_a_large_difference_other_columns_and_first_texts_are_written_whole(features: FeatureTables) -> None:
    first = pinned(features, write(features, "t", Rows(samples(30), "v1")), "v1")
    rows = samples(30) | {key: (1, "a", "x") for key in range(10)}
    assert write(features, "own", Rows(rows, "v2"), first, bounds=BOUNDS).table == "own"
    contract = feature_contract(
        DIMENSION, [pa.field("user__stars", pa.int64()), pa.field("user__b", pa.int64())]
    )
    found = VersionWriter(features).write("other", contract, Rows(samples(30), "v2"), [first])
    assert found.table == "other"
    silent = {key: (0, "a", None) for key in range(30)}
    mute = pinned(features, write(features, "mute", Rows(silent, "v1")), "v1")
    assert write(features, "spoken", Rows(silent | {3: (1, "a", "x")}, "v2"), mute).table == "spoken"


def test_a_damaged_base_is_not_built_upon(features: FeatureTables) -> None:
    first = pinned(features, write(features, "t", Rows(samples(30), "v1")), "v1")
    (file,) = Path(features.uri("t"), "data").iterdir()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    found = write(features, "own", Rows(samples(31), "v2"), first)
    assert (found.table, found.rows) == ("own", 31)


def test_a_long_chain_stays_short_to_read(features: FeatureTables) -> None:
    """Forty versions of two new rows of 400: few fragments and index segments, and every version as it was."""
    rows = samples(400)
    table = pinned(features, write(features, "t", Rows(rows, "v0")), "v0")
    known, most = [(table, rows)], 0
    for number in range(1, 41):
        rows = rows | {key: (number, "a", f"words of {key} in {number}") for key in (number, 400 + number)}
        table = pinned(
            features,
            write(features, f"own-{number}", Rows(rows, f"v{number}"), table, bounds=BOUNDS),
            f"v{number}",
        )
        known.append((table, rows))
        opened = features.dataset(table.table, table.lance_version)
        (index,) = opened.describe_indices()
        most = max(most, len(opened.get_fragments()), len(index.segments))
    assert {table.table for table, _ in known} == {"t"}
    assert 5 < most <= BOUNDS.tail + 4
    dataset_versions.clean(features.uri("t"), timedelta(0))
    for table, expected in (known[0], known[1], known[17], known[-1]):
        found = (
            features.dataset(table.table, table.lance_version).to_table(columns=["key", "text"]).to_pylist()
        )
        assert {row["key"]: row["text"] for row in found} == {
            str(k): text for k, (_, _, text) in expected.items()
        }
        assert len(found) == len(expected)
        assert features.measure(table.table, table.lance_version) == (table.rows, table.digest)
        opened = features.dataset(table.table, table.lance_version)
        assert check_files(opened.uri, owners_of(opened)).damaged == {}


def test_a_chain_is_written_whole_before_it_costs_its_readers(features: FeatureTables) -> None:
    rows = samples(200)
    table = pinned(features, write(features, "t", Rows(rows, "v0")), "v0")
    for number in range(1, 8):
        rows = rows | {key: (number, "a", "x") for key in range(20 * number, 20 * number + 20)}
        table = pinned(
            features,
            write(features, f"own-{number}", Rows(rows, f"v{number}"), table, bounds=BOUNDS),
            f"v{number}",
        )
    assert table.table == "own-4", "with 60 of 200 rows dead, and 80 about to be"


@pytest.mark.parametrize("kind", [vector_indexes.GRAPH, vector_indexes.LISTS])
def test_an_index_is_extended_and_its_recall_measured(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(vector_indexes, "EXACT_ROWS", 1_000)
    monkeypatch.setattr(vector_indexes, "GRAPH_ROWS", 10_000 if kind == vector_indexes.GRAPH else 0)
    rows = samples(1_500)
    table = pinned(features, write(features, "t", Rows(rows, "v1")), "v1")
    assert table.index == kind
    for number in (2, 3):
        rows = rows | {key: (number, "a", f"words {number}") for key in range(20 * number, 20 * number + 15)}
        table = pinned(
            features, write(features, "own", Rows(rows, f"v{number}"), table, bounds=BOUNDS), f"v{number}"
        )
    assert table.table == "t"
    opened = features.dataset("t", table.lance_version)
    columns = (*vector_indexes.SORTED_COLUMNS, *vector_indexes.BITMAP_COLUMNS)
    assert {index.name: len(index.segments) for index in opened.describe_indices()} == {
        f"{name}_idx": 3 for name in ("vector", "text", *columns)
    }
    assert min(features.recall("t", table.lance_version, kind)) >= vector_indexes.MIN_RECALL
    new = opened.to_table(filter="version = 'v3'", columns=["feature_id", "vector"])
    hits = [
        vector_indexes.neighbour_query(features.table(table), vector, kind, 1, ["feature_id"]).to_table()
        for vector in vectors_of(new)
    ]
    assert [hit["feature_id"][0].as_py() for hit in hits] == new["feature_id"].to_pylist()


def test_an_index_that_finds_too_little_is_built_anew(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_indexes, "EXACT_ROWS", 1_000)
    table = pinned(features, write(features, "t", Rows(samples(1_500), "v1")), "v1")
    monkeypatch.setattr(FeatureTables, "_measure_recall", lambda *_: vector_indexes.Recall(1.0, 0.9))
    assert write(features, "own", Rows(samples(1_501), "v2"), table).table == "own"


def test_a_commit_that_is_not_the_next_is_raced_again(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer restores and updates between any two steps of a burst."""
    first = pinned(features, write(features, "t", Rows(samples(40), "v1")), "v1")
    uri = features.uri("t")
    real = {name: getattr(commits, name) for name in ("restore", "update", "extend_indexes")}
    for place in real:
        struck: list[str] = []

        def between(*args: Any, place: str = place, struck: list[str] = struck) -> Any:
            if len(struck) < 2:
                struck.append(place)
                head = real["restore"](uri, first.lance_version, "other")
                added = commits.write_files(
                    uri, CONTRACT.bare, next(Rows({99: (9, "b", "other")}, "x").rows()).to_batches()
                )
                real["update"](uri, head, commits.Change(added=added), "other")
            return real[place](*args)

        with monkeypatch.context() as patched:
            patched.setattr(commits, place, between)
            found = write(features, "own", Rows(samples(41), "v2"), first)
        # Restore reads the head itself, so that it comes behind the other writer; the others try again.
        assert (found.table, found.rows, len(struck)) == ("t", 41, 2 if place != "restore" else 1)
        assert words(features, "t", found.lance_version, "words") == {str(key) for key in range(41)}
        assert words(features, "t", found.lance_version, "other") == set()
        (index,) = features.dataset("t", found.lance_version).describe_indices()
        assert index.num_rows_indexed >= 41


def test_the_tail_is_the_newest_fragments(features: FeatureTables) -> None:
    table = pinned(features, write(features, "t", Rows(samples(400), "v0")), "v0")
    assert tail_of(features.dataset("t", table.lance_version), 400, Bounds(tail=0)) == []
