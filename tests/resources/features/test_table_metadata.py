"""What a plain LanceDB client finds in a feature table; versions carry it at the cost of their difference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources import register_embedding_function
from mm_resources.catalog import Catalog
from mm_resources.features import vector_indexes
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.features.table_metadata import FUNCTION, metadata_of, stored_metadata
from mm_resources.features.versions import VersionWriter
from tests.resources.features.test_feature_tables import table
from tests.resources.features.test_versions import ANY, CONTRACT, Rows, pinned, samples

METADATA = {"mm.embedder": "e", "mm.fingerprint": "f" * 64}


@pytest.fixture
def features(tmp_path: Path) -> FeatureTables:
    return Catalog.open(tmp_path).features


def metadata(features: FeatureTables, name: str, version: int) -> dict[str, str]:
    return stored_metadata(features.dataset(name, version).schema.metadata)


def fragments(features: FeatureTables, name: str, version: int) -> set[int]:
    return {each.fragment_id for each in features.dataset(name, version).get_fragments()}


@pytest.mark.parametrize("of_base", [METADATA, {}])
def test_a_version_on_top_of_another_has_the_metadata(
    features: FeatureTables, of_base: dict[str, str]
) -> None:
    """Also on a base of earlier code, which has none; rows, digest and files are those of a version without."""
    writer = VersionWriter(features, bounds=ANY, metadata=METADATA)
    first = replace(writer, metadata=of_base).write("t", CONTRACT, Rows(samples(30), "v1"), [])
    assert metadata(features, "t", first.lance_version) == of_base
    base = pinned(features, first, "one")
    second = writer.write("other", CONTRACT, Rows(samples(31), "v2"), [base])
    assert second.table == "t"
    assert metadata(features, "t", second.lance_version) == METADATA
    assert fragments(features, "t", first.lance_version) < fragments(features, "t", second.lance_version)
    whole = features.write_candidate("whole", CONTRACT, Rows(samples(31), "v2").rows())
    assert (second.rows, second.digest) == (whole.rows, whole.digest)
    assert metadata(features, "t", first.lance_version) == of_base, "a version does not change"
    same = writer.write("other", CONTRACT, Rows(samples(30), "v1"), [base])
    assert same.lance_version == first.lance_version, "nothing is written for metadata alone"


def test_lancedb_embeds_a_query_as_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lancedb

    embedder = create("wordllama")
    texts = ["a cat sleeps on the sofa", "the bank raises rates", "a heron stands at the lake"]
    vectors = embedder.embed(texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = pa.table(
        {"text": texts, "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 256)}
    )
    database = lancedb.connect(tmp_path)
    described = metadata_of(embedder)
    opened: Any = database.create_table("t", rows.replace_schema_metadata(described))
    register_embedding_function()
    register_embedding_function()  # once more changes nothing
    (hit,) = opened.search("kitten").limit(1).to_list()
    assert hit["text"] == texts[0]
    query = embedder.embed_text(["kitten"])[0]
    cosine = float(query @ vectors[0] / np.linalg.norm(query))
    assert hit["_distance"] == pytest.approx(2 - 2 * cosine, abs=1e-5), "Euclidean, of unit vectors"
    (hit,) = opened.search("kitten").distance_type("cosine").limit(1).to_list()
    assert (hit["text"], hit["_distance"]) == (texts[0], pytest.approx(1 - cosine, abs=1e-5))
    with pytest.raises(UserError, match="the query is empty"):
        opened.search(" ").limit(1).to_list()
    with monkeypatch.context() as patched:
        patched.setattr(type(embedder), "embed_text", lambda _self, texts: np.zeros((len(texts), 256)))
        with pytest.raises(UserError, match="the query has no direction"):
            opened.search("kitten").limit(1).to_list()
    with pytest.raises(Exception, match="come from `mm backfill`"):  # of Arrow's stream
        opened.add([{"text": "no vector"}])

    (function,) = json.loads(described["embedding_functions"])
    assert function["name"] == FUNCTION
    function["model"]["space"] = "another"
    described["embedding_functions"] = json.dumps([function])
    other: Any = database.create_table("other", rows.replace_schema_metadata(described))
    with pytest.raises(UserError, match="in the space another, and the installed model has the space wordll"):
        other.search("kitten").limit(1).to_list()


def test_an_embedder_without_texts_names_no_function() -> None:
    assert "embedding_functions" not in metadata_of(create("aisfx"))
    assert metadata_of(create("aisfx"))["mm.metric"] == "cosine"


def test_columns_of_filters_are_indexed_beside_vectors(
    features: FeatureTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = features.write_candidate("small", CONTRACT, [table(60)])
    assert not features.dataset("small", small.lance_version).describe_indices()
    monkeypatch.setattr(vector_indexes, "EXACT_ROWS", 1_000)
    large = features.write_candidate("large", CONTRACT, [table(2_000)])
    opened = features.dataset("large", large.lance_version)
    indexed = {name for each in opened.describe_indices() for name in each.field_names}
    assert {"vector", "feature_id", "sample_id", "label", "split"} <= indexed
    plain = opened.to_table(columns=["sample_id", "label"])
    one = plain["sample_id"][7].as_py()
    assert "ScalarIndexQuery" in opened.scanner(filter=f"sample_id = '{one}'").explain_plan()
    label = plain["label"][3].as_py()
    expected = sum(each == label for each in plain["label"].to_pylist())
    assert opened.count_rows("label IS NULL" if label is None else f"label = '{label}'") == expected
