"""Mistakes in the arguments of `FeatureStore`, training sets and the loader: one line, before tables are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_resources.retrieval.feature_store import FeatureStore
from tests.resources.retrieval.test_training_sets import features, one_line

__all__ = ["features"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"), ({"batch_size": 2.5}, "batch_size is 2.5"), ({"batch_size": True}, "batch_size is True"),
        ({"workers": -1}, "workers is -1"), ({"seed": -1}, "seed is -1"), ({"shuffle": "yes"}, "shuffle is 'yes'"),
        ({"world_size": 0}, "world_size is 0"), ({"rank": 2, "world_size": 2}, "rank is 2"), ({"media": 1}, "media is 1"),
        ({"batch_size": 20, "world_size": 2, "drop_last": True}, "24 rows do not fill a batch of 20 on each of 2 ranks; use batches of at most 12"),
        ({"world_size": 30}, "24 rows give none to some of 30 ranks"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_the_loader_is_one_line(
    features: FeatureStore, arguments: dict[str, Any], words: str
) -> None:
    chosen = features.training_set("d@v1", modality="text")
    one_line(lambda: chosen.to_torch(**{"rank": 0, "world_size": 1, **arguments}), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 0}, "k is 0"), ({"k": -3}, "k is -3"), ({"k": "3"}, "k is '3'"), ({"mode": "fast"}, "mode 'fast' is not known"),
        ({"find": []}, "find '[]' is not known"), ({"group_by": 1}, "group_by '1' is not known"), ({"query": 3}, "of type int"),
        ({"query": Path("absent.png")}, "absent.png is no file"), ({"query": [1.0] * 7}, "7 dimensions, the table 8"),
        ({"query": [0.0] * 8}, "only zeros"), ({"query": [float("nan")] * 8}, "NaN or infinity"), ({"query": [1e300] * 8}, "infinity"),
        ({"query": np.ones((2, 4))}, "4 dimensions, the table 8"), ({"query": ["a", 3]}, "query 1: the query is of type int"),
        ({"query": [[1.0] * 8, [1.0, "a"]]}, "query 1: the query is no vector: it has something else than numbers"),
        ({"query": np.ones((2, 4, 3))}, "shape [2, 4, 3]"), ({"query": np.ones((2, 4, 2), np.uint8)}, "a picture of the shape [2, 4, 2]"),
        ({"query": np.ones(8, complex)}, "numbers"), ({"query": np.array(1.0)}, "shape []"), ({"query": []}, "0 dimensions"),
        ({"modality": []}, "modality is an empty list"), ({"modality": 3}, "modality 3"), ({"dataset_version": 3}, "dataset_version 3"),
        ({"dataset_version": []}, "empty list"), ({"embedder": 3}, "embedder 3"), ({"label": 3}, "label 3"), ({"where": []}, "filter"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_a_search_is_one_line(
    features: FeatureStore, arguments: dict[str, Any], words: str
) -> None:
    called = {"query": [1.0] * 8, "dataset_version": "d@v1", "modality": "text", **arguments}
    one_line(lambda: features.search(called.pop("query"), **called), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dataset_version": 3}, "dataset_version 3"), ({"dataset_version": "d"}, "'d' is not DATASET@VERSION"), ({"modality": 3}, "modality 3"),
        ({"modality": []}, "empty list"), ({"modality": "audio"}, "no modality 'audio'"), ({"split": 3}, "split 3"), ({"columns": 3}, "columns 3"),
        ({"columns": ["nope"]}, "no column 'nope'"), ({"columns": [3]}, "columns 3"), ({"embedder": 3}, "embedder 3"),
        ({"embedder": {"text": 3}}, "embedder of text 3"), ({"embedder": "nope"}, "no embedder 'nope'"), ({"manifest": {}}, "not both"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_a_training_set_is_one_line(
    features: FeatureStore, arguments: dict[str, Any], words: str
) -> None:
    one_line(
        lambda: features.training_set(**{"dataset_version": "d@v1", "modality": "text", **arguments}), words
    )


def test_other_arguments_are_checked(features: FeatureStore) -> None:
    manifest = features.training_set("d@v1", modality="text").manifest
    for wrong in (
        {},
        {**manifest, "rows": "24"},
        {**manifest, "tables": []},
        {**manifest, "tables": [{}]},
        [manifest],
    ):
        one_line(lambda wrong=wrong: features.training_set(manifest=wrong), "no manifest of a training set")
    one_line(lambda: features.explain(3), "identifier 3")  # type: ignore[arg-type]
    one_line(lambda: features.decisions("d@v1", None), "modality None")  # type: ignore[arg-type]
    one_line(lambda: FeatureStore.open(3), "root is 3")  # type: ignore[arg-type]
    one_line(lambda: features.training_set(manifest=manifest).to_ray(blocks=-1), "blocks is -1")
    one_line(lambda: features.training_set(manifest=manifest).to_torch().load_state_dict(3), "state is 3")  # type: ignore[arg-type]
    hits = features.search([1.0] * 8, dataset_version=["d@v1", "d@v1"], modality=["text", "text"], k=50)
    assert hits.num_rows == 24, "each table once"


def test_arguments_are_checked_before_tables_are_opened(tmp_path: Path) -> None:
    """A store without any table: what is wrong is the argument, not that nothing is registered."""
    empty = FeatureStore.open(tmp_path)
    one_line(lambda: empty.search("a cat", modality="text", mode="fast"), "mode 'fast' is not known")
    one_line(lambda: empty.search("a cat", dataset_version="d@v1", modality="text", k=0), "k is 0")
    one_line(
        lambda: empty.search("a cat", dataset_version="d@v1", modality="text", k=2**40),
        "give an integer of at most 1,000,000",
    )
    one_line(lambda: empty.training_set("d@v1", modality="text", where="(a"), "a ( is not closed")
    one_line(lambda: empty.training_set("d@v1", modality="text"), "d@v1 is not registered")
