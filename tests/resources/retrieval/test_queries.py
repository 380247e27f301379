"""Queries of all kinds, one and many: each gives the hits that it gives alone, as a path or a vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.embedders import create
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from tests.resources.published import publish, register

TEXTS = ["a cat sleeps on the sofa", "hot coffee in a cup", "a river flows to the sea", "bread from the oven"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("queries")
    catalog = Catalog.open(folder / "store")
    register(catalog, folder, "d", "v1", ["text"])
    rows = [{"sample": f"s{i}", "text": text} for i, text in enumerate(TEXTS)]
    publish(catalog, Cell("d", "v1", "text"), rows, create("wordllama"))
    return FeatureStore(catalog)


def search(features: FeatureStore, query: Any) -> pa.Table:
    return features.search(query, dataset_version="d@v1", modality="text", k=2)


def test_several_queries_have_the_hits_of_each(features: FeatureStore) -> None:
    words = ["coffee", "a cat", "the sea"]
    found = search(features, words)
    assert found["query"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert found["text"].to_pylist()[::2] == [TEXTS[1], TEXTS[0], TEXTS[2]]
    for number, word in enumerate(words):
        alone = search(features, word)
        assert found.filter(pa.compute.equal(found["query"], number)).drop_columns(["query"]).equals(alone)
    assert search(features, ["coffee"])["query"].to_pylist() == [0, 0]
    assert "query" not in search(features, "coffee").column_names
    mixed = search(features, ["coffee", np.asarray(create("wordllama").embed_text(["a cat"])[0])])
    assert mixed["text"].to_pylist()[::2] == [TEXTS[1], TEXTS[0]]


@pytest.mark.parametrize("kind", ["array", "lists", "tensor", "rows"])
def test_vectors_of_all_kinds(features: FeatureStore, kind: str) -> None:
    import torch

    embedder = create("wordllama")
    vectors = np.stack(embedder.embed_text(["the sea", "coffee"]))
    given = {
        "array": vectors,
        "lists": vectors.tolist(),
        "tensor": torch.from_numpy(vectors).requires_grad_(),
        "rows": tuple(vectors),
    }[kind]
    assert search(features, given)["text"].to_pylist()[::2] == [TEXTS[2], TEXTS[1]]
    assert search(features, given[0])["text"][0].as_py() == TEXTS[2]
    assert search(features, vectors[:1])["text"][0].as_py() == TEXTS[2], "one vector of an embedder's answer"


def test_what_is_published(features: FeatureStore) -> None:
    (row,) = features.datasets().to_pylist()
    pin = features.published("d@v1", "text")
    assert (row["dataset_version"], row["modality"], row["pin"]) == ("d@v1", "text", 1)
    assert (row["published_at"], row["problem"]) == (pin.published_at, None)
    name = f"registry/pins/{Cell('d', 'v1', 'text').path}/00000001.json"
    raw = features.catalog.store.read(name)
    try:
        features.catalog.store.write(name, raw[:20])
        (row,) = FeatureStore(Catalog.open(features.catalog.store.root)).datasets().to_pylist()
        assert row["dataset_version"] is None
        assert "damaged" in row["problem"]
    finally:
        features.catalog.store.write(name, raw)
