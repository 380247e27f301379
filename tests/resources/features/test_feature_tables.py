"""Feature tables: digests, versions, indexes and their recall, semantic duplicates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.features import vector_indexes as module
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.monitoring.semantic_duplicates import SemanticDuplicates, find_semantic_duplicates
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import take_rows

DIMENSION = 16
CONTRACT = feature_contract(DIMENSION, [pa.field("user__stars", pa.int64())])


def table(rows: int, seed: int = 0) -> pa.Table:
    """Return feature rows with vectors around a few centres, like real embeddings."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(8, DIMENSION))[random.integers(0, 8, rows)] + 0.4 * random.normal(
        size=(rows, DIMENSION)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = [digest("row", str(seed), str(i)) for i in range(rows)]
    filled = {
        "feature_id": [i[:32] for i in ids], "segment_id": [i[:32] for i in ids], "sample_id": [i[:32] for i in ids],
        "entity_id": [i[:32] for i in ids], "dataset": ["d"] * rows, "version": ["v1"] * rows, "modality": ["image"] * rows,
        "content_hash": ids, "source_uri": ["/x"] * rows, "key": ["x"] * rows, "span": ["full"] * rows, "embedder": ["e"] * rows,
        "fingerprint": ["f" * 64] * rows, "weights_hash": ["w"] * rows, "preprocessing": ["{}"] * rows, "split": ["train"] * rows,
        "quality_score": [1.0] * rows, "partial": [False] * rows, "mime": ["image/png"] * rows, "run_id": ["r"] * rows,
        "created_at": [datetime.now(UTC)] * rows, "user__stars": list(range(rows)),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
    }  # fmt: skip
    return CONTRACT.cast(pa.table(filled))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path)


@pytest.fixture
def features(catalog: Catalog) -> FeatureTables:
    return catalog.features


def test_a_small_table_is_searched_exactly(features: FeatureTables) -> None:
    written = features.write_candidate("d.v1.image.e", CONTRACT, [table(300)])
    assert (written.rows, written.index) == (300, "exact")
    assert features.recall("d.v1.image.e", written.lance_version, written.index) == (1.0, 1.0)


@pytest.mark.parametrize(("graph_rows", "kind"), [(4_000, "IVF_HNSW_SQ"), (3_999, "IVF_SQ")])
def test_a_large_table_is_indexed_and_its_recall_measured(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch, graph_rows: int, kind: str
) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 1_000)
    monkeypatch.setattr(module, "GRAPH_ROWS", graph_rows)
    written = features.write_candidate("d.v1.image.e", CONTRACT, [table(2_000, 1), table(2_000, 2)])
    assert (written.rows, written.index) == (4_000, kind)
    opened = features.database.open_table("d.v1.image.e")
    assert written.lance_version == opened.version
    columns = (*module.SORTED_COLUMNS, *module.BITMAP_COLUMNS, "vector")
    assert sorted(item.columns for item in opened.list_indices()) == sorted([name] for name in columns)
    assert all(
        0.95 <= found <= 1.0
        for found in features.recall("d.v1.image.e", written.lance_version, written.index)
    )


@pytest.mark.parametrize("exact_rows", [500, 50_000])
def test_vectors_that_all_but_coincide_are_reported(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, exact_rows: int
) -> None:
    """Except pairs of one sample or of one group of duplicates; with an index as without one."""
    monkeypatch.setattr(module, "EXACT_ROWS", exact_rows)
    rows = table(800, 1).to_pylist()
    noise = np.random.default_rng(2).normal(scale=0.01, size=(3, DIMENSION))
    for place, (other, shared) in enumerate(
        [(10, {}), (20, {"sample_id": rows[20]["sample_id"]}), (30, {"duplicate_group": "g"})]
    ):
        rows[30]["duplicate_group"] = "g"
        rows[100 + place] |= {
            "vector": (np.array(rows[other]["vector"]) + noise[place]).tolist(),
            "span": "seconds=1-2",
            **shared,
        }
    written = catalog.features.write_candidate("t", CONTRACT, [CONTRACT.rows(rows)])
    found = find_semantic_duplicates(
        catalog, "t", written.lance_version, written.index, min_similarity=0.99, checked=800
    )
    pair = {
        pair
        for pair in found.pairs
        if {pair.a, pair.b} & {rows[place]["sample_id"] for place in (100, 101, 102, 10, 20, 30)}
    }
    assert {(item.a, item.b) for item in pair} == {
        tuple(sorted([rows[10]["sample_id"], rows[100]["sample_id"]]))
    }
    (only,) = pair
    assert {only.span_a, only.span_b} == {"full", "seconds=1-2"}
    assert only.score > 0.99
    assert (found.checked, found.pairs[0].score) == (800, max(item.score for item in found.pairs))
    assert find_semantic_duplicates(
        catalog, "t", written.lance_version, written.index, min_similarity=0.99, checked=50
    ) == find_semantic_duplicates(
        catalog, "t", written.lance_version, written.index, min_similarity=0.99, checked=50
    )


def test_an_empty_table_has_nothing_alike(catalog: Catalog) -> None:
    written = catalog.features.write_candidate("t", CONTRACT, [])
    assert find_semantic_duplicates(catalog, "t", written.lance_version, written.index) == SemanticDuplicates(
        0, 0, []
    )


def test_a_pinned_version_does_not_change_under_its_readers(features: FeatureTables) -> None:
    first = features.write_candidate("t", CONTRACT, [table(50)]).lance_version
    features.tag("t", first, "pin-1")
    before = features.database.open_table("t")
    before.checkout(first)
    second = features.write_candidate("t", CONTRACT, [table(70, 3)]).lance_version
    assert second > first
    assert before.count_rows() == 50
    assert features.database.open_table("t").count_rows() == 70


def test_equal_rows_have_an_equal_digest_whatever_their_order(features: FeatureTables) -> None:
    rows = table(500)
    digests = {
        features.write_candidate("t", CONTRACT, parts).digest
        for parts in ([rows], [rows.slice(200), rows.slice(0, 200)])
    }
    assert len(digests) == 1
    assert features.write_candidate("t", CONTRACT, [table(500, 5)]).digest not in digests


def test_lancedb_and_pylance_read_each_other(features: FeatureTables) -> None:
    features.write_candidate("t", CONTRACT, [table(20)])
    opened = features.database.open_table("t")
    assert opened.count_rows() == 20
    opened.delete("user__stars < 5")
    dataset = lance_datasets.open_dataset(features.store.uri("features/t.lance"))
    assert dataset is not None
    assert dataset.count_rows() == 15


def test_an_index_that_is_asked_too_little_is_seen(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 1_000)
    written = features.write_candidate("t", CONTRACT, [table(4_000, 1)])
    good = features.recall("t", written.lance_version, written.index)
    assert min(good) >= 0.95
    monkeypatch.setattr(module, "PROBES", {written.index: 1})
    monkeypatch.setattr(module, "REFINE_FACTOR", 1)
    assert features.recall("t", written.lance_version, written.index).plain < good.plain


def test_one_scan_finds_the_true_neighbours_of_all_queries(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lance_datasets, "READ_ROWS", 64
    )  # several batches, some with fewer rows than the limit
    rows = table(200)
    written = features.write_candidate("t", CONTRACT, [rows])
    dataset, vectors = (
        features.dataset("t", written.lance_version),
        np.array(rows["vector"].to_pylist(), np.float32),
    )
    scores, places = module.exact_neighbours(dataset, vectors[:5], 150)
    truth = -np.sort(-(vectors[:5] @ vectors.T), axis=1)
    np.testing.assert_allclose(scores, truth[:, :150], atol=1e-6)
    taken = take_rows(dataset, places[0].tolist(), ["vector"])["vector"].to_pylist()
    np.testing.assert_allclose(np.array(taken) @ vectors[0], scores[0], atol=1e-6)
    few, none = module.exact_neighbours(dataset, vectors[:5], 10, "user__stars < 3")
    np.testing.assert_allclose(few[:, :3], -np.sort(-(vectors[:5] @ vectors[:3].T), axis=1), atol=1e-6)
    assert np.isneginf(few[:, 3:]).all()
    assert (none[:, 3:] == -1).all()


def test_of_equal_vectors_any_is_a_true_neighbour(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 1_000)
    rows = table(2_000, 1)
    same = pa.FixedSizeListArray.from_arrays(
        pa.array(np.repeat(np.eye(1, DIMENSION, dtype=np.float32), 50, axis=0).reshape(-1)), DIMENSION
    )
    alike_rows = table(50, 9).set_column(CONTRACT.schema.get_field_index("vector"), "vector", same)
    written = features.write_candidate("t", CONTRACT, [rows, alike_rows])
    monkeypatch.setattr(module, "query_rows", lambda count: list(range(2_000, 2_050)))
    assert features.recall("t", written.lance_version, written.index).plain == 1.0
