"""`FeatureStore.open("http://...")`: the same calls and the same results as on the store itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.feature_store import FeatureStore
from tests.assets.conftest import Platform
from tests.assets.serving.conftest import TOKEN

TEXT = {"dataset_version": "tiny@v1", "modality": "text"}
IMAGE = {"dataset_version": "tiny@v1", "modality": "image"}


@pytest.fixture(scope="module")
def remote(address: str) -> FeatureStore:
    return FeatureStore.open(address, token=TOKEN)


def test_hits_are_those_of_the_store(
    remote: FeatureStore, published: Platform, photos: dict[str, Path]
) -> None:
    own = published.features
    vector = np.asarray(
        own.training_set("tiny@v1", modality="image").to_arrow()["vector"][0].as_py(), np.float32
    )
    for query, named in (
        ("the cat sleeps", TEXT),
        (photos["flower"], IMAGE),
        (str(photos["flower"]), IMAGE),
        (photos["flower"].read_bytes(), IMAGE),
        (vector, IMAGE),
        (vector.tolist(), IMAGE),
        (f"id:{own.search('a bird', **TEXT, k=1)['feature_id'][0].as_py()}", TEXT),
    ):
        one, other = remote.search(query, **named, k=2), own.search(query, **named, k=2)
        assert one.schema == other.schema
        assert one["feature_id"].equals(other["feature_id"])
        assert np.allclose(one["score"].to_numpy(), other["score"].to_numpy(), atol=1e-5)


def test_decisions_and_chains_are_equal(remote: FeatureStore, published: Platform) -> None:
    assert remote.decisions("tiny@v1", "image").equals(published.features.decisions("tiny@v1", "image"))
    sample = published.features.decisions("tiny@v1", "image")["sample_id"][0].as_py()
    assert remote.explain(sample) == published.features.explain(sample)


def test_training_sets_are_equal(remote: FeatureStore, published: Platform) -> None:
    one, other = (
        store.training_set(
            "tiny@v1", modality="text", where="label IS NOT NULL", columns=["label", "user__stars"]
        )
        for store in (remote, published.features)
    )
    assert one.manifest == other.manifest
    assert one.to_arrow().equals(other.to_arrow())
    assert remote.training_set(manifest=other.manifest).to_arrow().equals(other.to_arrow())
    with pytest.raises(UserError, match="training_set\\(manifest="):
        one.to_torch()


def test_errors_are_the_words_of_the_store(remote: FeatureStore, published: Platform, address: str) -> None:
    for call in (
        lambda store: store.search("x", dataset_version="tiny@v9", modality="text"),
        lambda store: store.search("x", **TEXT, where="no_such = 1"),
        lambda store: store.search([1.0, 2.0], **TEXT),
        lambda store: store.training_set("tiny@v1", modality="text", columns=["no_such"]),
    ):
        messages = []
        for store in (remote, published.features):
            with pytest.raises(UserError) as error:
                call(store)
            messages.append(str(error.value))
        assert messages[0] == messages[1][:500]
    with pytest.raises(UserError, match="no known token"):
        FeatureStore.open(address, token="another-token-0123456789").decisions("tiny@v1", "text")
    with pytest.raises(UserError, match="does not answer"):
        FeatureStore.open("http://127.0.0.1:9").decisions("tiny@v1", "text")


def test_an_empty_training_set_has_its_columns(remote: FeatureStore, published: Platform) -> None:
    one, other = (
        store.training_set("tiny@v1", modality="text", where="label = 'none such'").to_arrow()
        for store in (remote, published.features)
    )
    assert one.schema == other.schema
    assert one.num_rows == 0


def test_several_queries_and_the_list_of_datasets_are_those_of_the_store(
    remote: FeatureStore, published: Platform
) -> None:
    own = published.features
    one, other = (store.search(["a cat", "coffee"], **TEXT, k=1) for store in (remote, own))
    assert one["query"].to_pylist() == [0, 1]
    assert one["feature_id"].equals(other["feature_id"])
    assert remote.datasets().equals(own.datasets())
    assert own.datasets().num_rows == 2


def test_mixtures_and_digests_are_refused_in_one_line(remote: FeatureStore, published: Platform) -> None:
    mixed = published.features.training_set({"tiny@v1": 1}, modality="text", epoch_rows=4)
    for call in (
        lambda: remote.training_set({"tiny@v1": 1}, modality="text"),
        lambda: remote.training_set(manifest=mixed.manifest),
        lambda: remote._pin({"manifest": mixed.manifest}),
        lambda: remote.training_set(manifest=mixed.digest),
    ):
        with pytest.raises(UserError, match="open the store itself"):
            call()
