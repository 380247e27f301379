"""Training sets on small tables: filters, splits, joins, embedders and types, compared with DuckDB and Lance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.retrieval.training_rows import BlockReader
from mm_resources.retrieval.training_set import TrainingSet
from tests.resources.features.test_feature_tables import CONTRACT, table
from tests.resources.published import publish, register

LABELS = ["a", "b", "it's) OR (1 = 1", None]
SPLITS = ["train", "test", "held-out"]
NAMES = ("entity_id", "feature_id", "sample_id", "vector")


def rows_of(count: int, seed: int, prefix: str) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        {
            "sample": f"{prefix}{i}", "entity": f"e{i}", "text": f"text {prefix} {i}", "label": LABELS[i % 4],
            "split": SPLITS[i % 3], "vector": vectors[i],
        }
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """24 texts in two spaces (wordllama, other), 12 images of their entities, and an empty cell."""
    folder = tmp_path_factory.mktemp("sets")
    catalog, embedder = Catalog.open(folder / "store"), create("wordllama")
    for version in ("v1", "v2"):
        register(catalog, folder, "d", version, ["text", "image"])
    text = publish(catalog, Cell("d", "v1", "text"), rows_of(24, 0, "t"), embedder)
    other = publish(catalog, Cell("d", "v2", "text"), rows_of(24, 1, "t"), embedder).tables[0]
    tables = [*text.tables, replace(other, embedder="other", primary=False)]
    catalog.registry.pins.publish(text.cell, replace(text, number=2, tables=tables))
    publish(catalog, Cell("d", "v1", "image"), rows_of(12, 2, "i"), embedder)
    return FeatureStore(catalog)


def stored(features: FeatureStore, modality: str = "text") -> pa.Table:
    """Return all rows of a table, read by Lance alone."""
    pinned = features.published("d@v1", modality).primary
    return features.catalog.features.dataset(pinned.table, pinned.lance_version).to_table()


def one_line(call: Any, *words: str) -> None:
    with pytest.raises(UserError) as raised:
        call()
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


ATOMS = st.sampled_from(
    [
        "label = 'a'", "label <> 'b'", "label IS NULL", "label IS NOT NULL", "label IN ('a', 'it''s) OR (1 = 1')",
        "key LIKE 't1%'", "split = 'test'", "NOT partial", "quality_score > 2", "text LIKE '%(%'", "1 = 1", "`label` = 'b'",
        "length(key) = 2",
    ]
)  # fmt: skip
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("{} OR {}".format, inner, inner),
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(where=FILTERS, split=st.sampled_from(SPLITS))
def test_a_filter_and_a_split_choose_what_duckdb_chooses(
    features: FeatureStore, where: str, split: str
) -> None:
    chosen = features.training_set("d@v1", modality="text", where=where, split=split, columns=["split"])
    rows = stored(features)
    quoted = where.replace("`", '"')
    expected = duckdb.sql(
        f"SELECT feature_id FROM (SELECT * FROM rows WHERE {quoted}) WHERE split = '{split}'"
    )
    assert sorted(chosen.to_arrow()["feature_id"].to_pylist()) == sorted(
        row[0] for row in expected.fetchall()
    )
    assert rows.num_rows == 24


PIECES = [
    "label",
    "=",
    "'a'",
    "(",
    ")",
    "OR",
    "AND",
    "NOT",
    "1 = 1",
    "--",
    "/*",
    "*/",
    "'",
    '"',
    "`",
    ";",
    "?",
    "$1",
    ":x",
]
PIECES += [
    "LIMIT 1",
    "N'a'",
    "E'\\'",
    "\n",
    "[",
    "]",
    ",",
    "true",
    "''",
    "SELECT 1",
    "$$",
    "GROUP BY label",
    "\\",
]


@settings(QUICK, max_examples=60)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=7))
def test_no_text_of_a_filter_leaves_its_split(features: FeatureStore, pieces: list[str]) -> None:
    try:
        found = features.training_set(
            "d@v1", modality="text", where=" ".join(pieces), split="test", columns=["split"]
        )
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert set(found.to_arrow()["split"].to_pylist()) <= {"test"}


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ("label = 'a') OR (1 = 1", "a ) closes no ("), ("(label = 'a'", "a ( is not closed"), ("label = 'a", "a quote is not closed"),
        ("label = ?", "parameters such as ?"), ("label = $1", "parameters such as ?"), ("label = :a", "parameters such as ?"),
        ("label = 'a' -- b", "comments"), ("label = 'a' /* b", "comments"), ("label = 'a'; SELECT 1", "more than one statement"),
        ('label = "a"', "double quotes"), ("label = N'a'", "prefix"), ("", "is empty"), (" ", "is empty"), ("label = 'a' LIMIT 1", "LIMIT"),
        ("label", "invalid"), ("nope = 1", "nope"), (3, "it is no text"), ("cast(text as int) = 1", "Cannot cast"), ("1 / 0 = 1", "zero"),
        ("passed[", "a [ is not closed"), ("label = '\ud800'", "surrogates"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("modality", ["text", ["image", "text"]])
def test_a_wrong_filter_is_one_line(features: FeatureStore, where: Any, cause: str, modality: Any) -> None:
    one_line(
        lambda: features.training_set("d@v1", modality=modality, where=where, split="train"), "filter", cause
    )
    vector = [1.0] * 8
    one_line(
        lambda: features.search(vector, dataset_version="d@v1", modality="text", where=where), "filter", cause
    )


def test_each_modality_has_the_embedder_that_is_named(features: FeatureStore) -> None:
    def tables(embedder: Any) -> list[str]:
        chosen = features.training_set("d@v1", modality=["image", "text"], embedder=embedder)
        return [table["table"] for table in chosen.manifest["tables"]]

    image, text = "d.v1.image.wordllama", "d.v1.text.wordllama"
    assert tables(None) == tables("wordllama") == tables({"image": "wordllama"}) == [image, text]
    assert tables({"text": "other"}) == [image, "d.v2.text.wordllama"]
    joined = features.training_set("d@v1", modality=["image", "text"], embedder={"text": "other"}).to_arrow()
    vectors = {row["text"]: row["vector"] for row in rows_of(24, 1, "t")}
    found = features.training_set(
        "d@v1", modality=["image", "text"], embedder={"text": "other"}, columns=["text"]
    )
    for row in found.to_arrow().to_pylist():
        np.testing.assert_array_equal(np.float32(row["text__vector"]), vectors[row["text__text"]])
    assert joined.num_rows == 12
    one_line(lambda: tables("other"), "image has no embedder 'other'", "one for each modality")
    one_line(lambda: tables({"image": "other"}), "image has no embedder 'other'; it has: wordllama")
    one_line(lambda: tables({"audio": "x"}), "embedder names one of 'audio'")


def test_columns_that_every_set_has_may_be_named(features: FeatureStore) -> None:
    columns = [
        "sample_id",
        "entity_id",
        "label",
        "vector",
        "label",
        "duplicate_group",
        "feature_id",
        "created_at",
        "passed",
    ]
    more = ["label", "duplicate_group", "created_at", "passed"]
    one = features.training_set("d@v1", modality="image", columns=columns)
    assert one.to_arrow().column_names == [*NAMES, *more]
    both = features.training_set("d@v1", modality=["image", "text"], columns=columns)
    rows = both.to_arrow()
    assert rows.column_names == [
        "entity_id",
        *(f"{modality}__{name}" for modality in ("image", "text") for name in [*NAMES[1:], *more]),
    ]
    texts = {row["entity_id"]: row for row in stored(features).to_pylist()}
    images = {row["entity_id"]: row for row in stored(features, "image").to_pylist()}
    assert {row["entity_id"] for row in rows.to_pylist()} == images.keys() & texts.keys()
    for row in rows.to_pylist():
        assert row["text__sample_id"] == texts[row["entity_id"]]["sample_id"]
        assert row["image__created_at"] == images[row["entity_id"]]["created_at"]
    for modality in ("image", "text"):
        for name in [*NAMES[1:], *more]:
            assert rows.schema.field(f"{modality}__{name}").type == one.to_arrow().schema.field(name).type
    batch = next(iter(both.to_torch(batch_size=12)))
    assert list(batch) == [*rows.column_names, "image__label_id", "text__label_id"]
    assert features.training_set(manifest=json.loads(json.dumps(both.manifest))).to_arrow().num_rows == 12


@pytest.mark.parametrize("modality", ["text", ["image", "text"]])
def test_an_empty_set_has_the_types_of_a_full_one(features: FeatureStore, modality: Any) -> None:
    columns = ["label", "created_at", "passed", "partial", "width"]
    full = features.training_set("d@v1", modality=modality, columns=columns).to_arrow()
    empty = features.training_set("d@v1", modality=modality, columns=columns, where="1 = 2", split="train")
    assert empty.to_arrow().num_rows == 0
    assert empty.to_arrow().schema == full.schema
    assert full.schema.field(full.column_names[3]).type == pa.list_(pa.float32(), 8) or modality != "text"
    assert list(empty.to_torch()) == []


def test_splits_have_manifests_of_their_own(features: FeatureStore) -> None:
    whole = features.training_set("d@v1", modality="text", where="label = 'a' OR label IS NULL")
    assert whole.splits() == sorted(SPLITS)
    counts = {}
    for split in SPLITS:
        part = whole.of_split(split)
        again = features.training_set(manifest=json.loads(json.dumps(part.manifest)))
        assert again.to_arrow().sort_by("feature_id") == part.to_arrow().sort_by("feature_id")
        counts[split] = part.manifest["rows"]
    rows = stored(features)
    found = duckdb.sql("SELECT split, count(*) FROM rows WHERE label = 'a' OR label IS NULL GROUP BY split")
    assert dict(found.fetchall()) == counts
    assert sum(counts.values()) == whole.manifest["rows"] < rows.num_rows
    one_line(lambda: whole.of_split("trian"), "d@v1 has no split 'trian'; it has: held-out, test, train")
    one_line(lambda: features.training_set("d@v1", modality="text", split="trian"), "no split 'trian'")


@pytest.fixture
def numbers(tmp_path: Path) -> tuple[TrainingSet, list[int | None]]:
    """500 rows with an integer column that has a null in the last hundred alone."""
    values: list[int | None] = [2**53 + 1 + i for i in range(500)]
    values[450] = None
    rows = table(500).drop_columns("user__stars").append_column("user__stars", pa.array(values, pa.int64()))
    catalog = Catalog.open(tmp_path)
    version = catalog.features.write_candidate("d.v1.image.e", CONTRACT, [rows]).lance_version
    pinned = {"modality": "image", "pin": 1, "table": "d.v1.image.e", "lance_version": version}
    columns = ["user__stars", "quality_score", "passed", "created_at"]
    manifest = {"dataset_version": "d@v1", "tables": [pinned], "where": None, "columns": columns}
    return TrainingSet(catalog, manifest), values


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_integers_keep_their_digits_and_one_type(
    numbers: tuple[TrainingSet, list[int | None]], shuffle: bool, workers: int
) -> None:
    chosen, values = numbers
    batches = list(chosen.to_torch(batch_size=64, shuffle=shuffle, workers=workers))
    assert {type(batch["user__stars"]) for batch in batches} == {list}
    ids = [digest("row", "0", str(i))[:32] for i in range(500)]
    expected = dict(zip(ids, values, strict=True))
    found = {
        key: value
        for batch in batches
        for key, value in zip(batch["feature_id"], batch["user__stars"], strict=True)
    }
    assert found == expected
    without = TrainingSet(chosen.catalog, {**chosen.manifest, "where": "user__stars IS NOT NULL"})
    tensors = [batch["user__stars"] for batch in without.to_torch(batch_size=64)]
    assert {str(tensor.dtype) for tensor in tensors} == {"torch.int64"}
    assert {value for tensor in tensors for value in tensor.tolist()} == set(values) - {None}


def test_blocks_for_ray_have_arrow_types(numbers: tuple[TrainingSet, list[int | None]]) -> None:
    chosen, values = numbers
    block = BlockReader(chosen._rows.reader(), media=False)({"id": np.arange(440, 460)})
    types = {name: block.schema.field(name).type for name in block.column_names}
    assert types["user__stars"] == pa.int64()
    assert types["passed"] == pa.list_(pa.string())
    assert types["created_at"] == pa.timestamp("us", "UTC")
    assert types["vector"] == pa.fixed_shape_tensor(pa.float32(), [16])
    assert block["user__stars"].to_pylist() == values[440:460]
