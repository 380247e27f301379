"""Mixtures: shares by weight and by label, counted, and the same rows from the manifest."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.retrieval.mixture_rows import apportion
from tests.resources.published import publish, register


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Version v1 has 30 rows of label a and 10 of b; v2 has 20 of c."""
    folder = tmp_path_factory.mktemp("mixtures")
    catalog, embedder = Catalog.open(folder / "store"), create("wordllama")
    for version, labels in (("v1", "a" * 30 + "b" * 10), ("v2", "c" * 20)):
        register(catalog, folder, "d", version, ["text"])
        vectors = np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = [
            {"sample": f"{version}{i}", "text": f"{version} {i}", "label": label, "vector": vectors[i]}
            for i, label in enumerate(labels)
        ]
        publish(catalog, Cell("d", version, "text"), rows, embedder)
    return FeatureStore(catalog)


def labels(loader: Any) -> Counter[str]:
    return Counter(label for batch in loader for label in batch["label"])


def test_shares_are_those_of_the_weights(features: FeatureStore) -> None:
    mixed = features.training_set({"d@v1": 3, "d@v2": 1}, modality="text", epoch_rows=400)
    assert len(mixed) == 400
    found = labels(mixed.to_torch(batch_size=32, shuffle=True))
    assert (found["c"], found["a"] + found["b"]) == (100, 300)
    assert mixed.classes == ["a", "b", "c"]
    again = features.training_set(manifest=json.loads(json.dumps(mixed.manifest)))
    assert again.to_arrow().equals(mixed.to_arrow())
    assert again.manifest == mixed.manifest


@pytest.mark.parametrize(("temperature", "expected"), [(None, (50, 50)), (1, (75, 25)), (2, (63, 37))])
def test_labels_share_by_temperature(
    features: FeatureStore, temperature: float | None, expected: tuple[int, int]
) -> None:
    drawn = features.training_set(
        "d@v1", modality="text", balance="label", temperature=temperature, epoch_rows=100
    )
    loader = drawn.to_torch(batch_size=16, shuffle=True)
    for _ in range(2):
        found = labels(loader)
        assert (found["a"], found["b"]) == expected


def test_a_mixture_resumes(features: FeatureStore) -> None:
    mixed = features.training_set({"d@v1": 1, "d@v2": 1}, modality="text", epoch_rows=60)
    whole = sorted(n for batch in mixed.to_torch(batch_size=7, shuffle=True) for n in batch["feature_id"])
    first = mixed.to_torch(batch_size=7, shuffle=True)
    begun = [n for _, batch in zip(range(3), first, strict=False) for n in batch["feature_id"]]
    rest = []
    for rank in range(2):
        other = mixed.to_torch(batch_size=5, shuffle=True, rank=rank, world_size=2)
        other.load_state_dict(first.state_dict())
        rest += [n for batch in other for n in batch["feature_id"]]
    assert sorted(begun + rest) == whole


def test_wrong_mixtures_are_one_line(features: FeatureStore) -> None:
    with pytest.raises(UserError, match="the weight of d@v1 is 0"):
        features.training_set({"d@v1": 0}, modality="text")
    with pytest.raises(UserError, match="temperature is of the values of a column"):
        features.training_set("d@v1", modality="text", temperature=2)


def test_shares_are_whole_numbers() -> None:
    assert apportion(10, np.asarray([1.0, 1.0, 1.0])) == [4, 3, 3]


def test_worker_processes_read_the_rows_and_forked_ones_say_why_not(features: FeatureStore) -> None:
    from torch.utils.data import DataLoader

    loader = features.training_set("d@v1", modality="text").to_torch(batch_size=7, shuffle=True)
    expected = [batch["feature_id"] for batch in loader]
    loader.set_epoch(0)
    helped = DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="forkserver")
    assert [batch["feature_id"] for batch in helped] == expected
    loader.set_epoch(0)
    with pytest.raises(UserError, match="give the DataLoader multiprocessing_context='forkserver'"):
        list(DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="fork"))


@pytest.mark.usefixtures("ray_cluster")
def test_ray_mixes_by_weight(features: FeatureStore) -> None:
    mixed = features.training_set({"d@v1": 3, "d@v2": 1}, modality="text", epoch_rows=400)
    found = mixed.to_ray(blocks=40).take_all()
    assert Counter(row["feature_id"] for row in found) == Counter(mixed.to_arrow()["feature_id"].to_pylist())
    for start in range(0, 400, 100):
        share = Counter(row["label"] for row in found[start : start + 100])["c"]
        assert 15 <= share <= 35, "interleaved, not one version behind the other"
