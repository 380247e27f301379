"""Search by vector, by words or both: versions, modalities, groups, duplicates and hard negatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.retrieval.filters import check_filter
from mm_resources.retrieval.query_vectors import check_query
from tests.resources.published import publish, register

RIVER, BREAD = "The river runs slowly into the sea.", "The loaf is baked with rye and salt."
NOTES = [
    *(
        {"sample": "film", "entity": "film", "text": f"{RIVER} Scene {i}.", "label": "water"}
        for i in range(40)
    ),
    {"sample": "sound", "entity": "film", "text": "A river, and then the sea.", "label": "water"},
    {"sample": "loaf", "text": BREAD, "label": "food"},
    {"sample": "loaf again", "text": BREAD + "!", "label": "food", "split": "test"},
    {"sample": "boat", "text": "A baked loaf lies in a boat on the river.", "label": "odd"},
    {"sample": "code", "text": "Serial number XK-4711 was returned.", "label": None},
]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("search")
    catalog, embedder = Catalog.open(folder / "store"), create("wordllama")
    register(catalog, folder, "notes", "v1", ["text", "audio"])
    register(catalog, folder, "notes", "v2", ["text"])
    register(catalog, folder, "other", "v1", ["text"])
    register(catalog, folder, "empty", "v1", ["text"])
    publish(catalog, Cell("notes", "v1", "text"), NOTES, embedder)
    publish(
        catalog,
        Cell("notes", "v2", "text"),
        [{"sample": "ocean", "text": "The ocean is wide and blue.", "label": "water"}],
        embedder,
    )
    publish(
        catalog,
        Cell("notes", "v1", "audio"),
        [{"sample": "talk", "text": "We talk about the price of bread and rye.", "label": "speech"}],
        embedder,
    )
    publish(
        catalog,
        Cell("other", "v1", "text"),
        [{"sample": "far", "text": "A river.", "vector": np.eye(8, dtype=np.float32)[0]}],
        create("minilm"),
    )
    return FeatureStore(catalog)


def keys(features: FeatureStore, query: object, **settings: object) -> list[str]:
    settings = {"dataset_version": "notes@v1", "modality": "text", **settings}
    return features.search(query, **settings)["key"].to_pylist()  # type: ignore[arg-type]


def test_words_are_found_that_vectors_do_not_know(features: FeatureStore) -> None:
    assert keys(features, "XK-4711", mode="text", k=1) == ["code"]
    assert set(keys(features, "baking", mode="text", k=5)) == {"loaf", "loaf again", "boat"}, "by stem"
    assert keys(features, "zzzz", mode="text") == []
    assert keys(features, '"river (AND', mode="text", group_by="sample", k=9) != [], (
        "quotes and operators are plain text"
    )


def test_hybrid_joins_both_rankings(features: FeatureStore) -> None:
    found = features.search(
        "bake a loaf", dataset_version="notes@v1", modality="text", mode="hybrid", k=5
    ).to_pylist()
    assert {hit["key"] for hit in found[:3]} == {"loaf", "loaf again", "boat"}
    vector, words = (keys(features, "bake a loaf", mode=mode, k=25) for mode in ("vector", "text"))
    for hit in found:
        ranks = [
            1 / (60 + ranked.index(hit["key"]) + 1) for ranked in (vector, words) if hit["key"] in ranked
        ]
        if hit["key"] != "film":  # its forty parts share a key
            assert hit["score"] == pytest.approx(sum(ranks))
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_one_long_film_does_not_fill_the_page(features: FeatureStore, mode: str) -> None:
    assert keys(features, RIVER, mode=mode, k=5) == ["film"] * 5
    by_sample = keys(features, RIVER, mode=mode, k=3, group_by="sample")
    assert by_sample[0] == "film"
    assert set(by_sample) == {"film", "sound", "boat"}
    by_entity = features.search(
        RIVER, dataset_version="notes@v1", modality="text", mode=mode, k=3, group_by="entity"
    )
    assert len(set(by_entity["entity_id"].to_pylist())) == 3
    assert "sound" not in by_entity["key"].to_pylist(), "the film's own sound"


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_a_filter_comes_before_the_search(features: FeatureStore, mode: str) -> None:
    """The only row that passes the filter is the last of forty-four."""
    assert keys(features, f"{RIVER} loaf", mode=mode, where="split = 'test'", k=1) == ["loaf again"]
    assert keys(features, f"{RIVER} loaf", mode=mode, where="split = 'test'", k=1, group_by="entity") == [
        "loaf again"
    ]
    with pytest.raises(UserError, match=r"the filter .*nope.* is invalid"):
        keys(features, RIVER, mode=mode, where="nope = 1")


def test_duplicates_and_hard_negatives(features: FeatureStore) -> None:
    loaf = features.search(BREAD, dataset_version="notes@v1", modality="text", k=1).to_pylist()[0]
    assert keys(features, f"id:{loaf['sample_id']}", find="duplicates") == [
        {"loaf": "loaf again", "loaf again": "loaf"}[loaf["key"]]
    ]
    negatives = features.search(
        f"id:{loaf['feature_id']}", dataset_version="notes@v1", modality="text", find="hard_negatives", k=2
    )
    assert negatives["key"][0].as_py() == "boat"
    assert "food" not in negatives["label"].to_pylist()
    assert keys(features, BREAD, find="hard_negatives", label="odd", k=2) == ["loaf", "loaf again"]
    with pytest.raises(UserError, match="give the label of the query"):
        keys(features, BREAD, find="hard_negatives")
    with pytest.raises(UserError, match="by mode 'vector' alone"):
        keys(features, BREAD, find="duplicates", mode="text")


def test_versions_and_modalities_are_merged_by_score(features: FeatureStore) -> None:
    found = features.search("the wide ocean", dataset_version=["notes@v1", "notes@v2"], modality="text", k=50)
    assert found.num_rows == len(NOTES) + 1
    assert found["dataset_version"][0].as_py() == "notes@v2"
    assert found["score"].to_pylist() == sorted(found["score"].to_pylist(), reverse=True)
    both = keys(features, "rye bread", modality=["text", "audio"], mode="hybrid", k=3)
    assert {"talk", "loaf"} <= set(both)
    sample = features.search("ocean", dataset_version="notes@v2", modality="text", k=1)["sample_id"][
        0
    ].as_py()
    assert keys(features, f"id:{sample}", dataset_version=["notes@v1", "notes@v2"], k=1) == ["ocean"]


def test_all_versions(features: FeatureStore) -> None:
    assert set(keys(features, "river ocean", dataset_version=None, mode="text", group_by="sample")) == {
        "film",
        "sound",
        "boat",
        "ocean",
        "far",
    }
    with pytest.raises(
        UserError, match=r"but others use: other.v1.text.minilm \(minilm-[0-9a-f]+\); search them separately"
    ):
        keys(features, "river", dataset_version=None)
    with pytest.raises(UserError, match="nothing is published of any video"):
        keys(features, "river", dataset_version=None, modality="video")


@pytest.mark.parametrize("group_by", [None, "sample", "entity"])
@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_each_version_shows_its_own_label(relabelled: FeatureStore, mode: str, group_by: str | None) -> None:
    found = relabelled.search("loaf river", modality="text", mode=mode, group_by=group_by, k=9).to_pylist()
    assert sorted((hit["key"], hit["dataset_version"], hit["label"]) for hit in found) == [
        ("bun", "ours@v1", "food"),
        ("bun", "ours@v2", "bread"),
        ("loaf", "ours@v1", "food"),
        ("loaf", "ours@v2", "bread"),
        ("stone", "ours@v1", "rock"),
        ("stone", "ours@v2", "food"),
    ]


def test_hard_negatives_go_by_the_label_in_each_version(relabelled: FeatureStore) -> None:
    """The loaf is food in v1 and bread in v2, where the stone is food."""
    loaf = relabelled.search("rye", modality="text", dataset_version="ours@v1", k=1).to_pylist()[0]
    found = relabelled.search(f"id:{loaf['sample_id']}", modality="text", find="hard_negatives", k=9)
    assert [(hit["key"], hit["dataset_version"]) for hit in found.to_pylist()] == [
        ("stone", "ours@v1"),
        ("stone", "ours@v2"),
    ]


@pytest.fixture(scope="module")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return labelled(
        tmp_path_factory.mktemp("relabelled"),
        {"v1": ("food", "food", "rock"), "v2": ("bread", "bread", "food")},
    )


@pytest.mark.parametrize("bare", ["v1", "v2"])
def test_a_version_without_labels_goes_by_the_other(tmp_path: Path, bare: str) -> None:
    labels: dict[str, tuple[str | None, ...]] = dict.fromkeys(("v1", "v2"), ("food", "food", "rock"))
    found = labelled(tmp_path, {**labels, bare: (None, "food", "rock")})
    loaf = found.search("rye", modality="text", dataset_version="ours@v1", k=1).to_pylist()[0]
    hits = found.search(f"id:{loaf['sample_id']}", modality="text", find="hard_negatives", k=9).to_pylist()
    assert [hit["key"] for hit in hits] == ["stone", "stone"]


def labelled(folder: Path, labels_of: dict[str, tuple[str | None, ...]]) -> FeatureStore:
    """Publish three texts in versions of other labels."""
    catalog, embedder = Catalog.open(folder / "store"), create("wordllama")
    texts = {"loaf": BREAD, "bun": "A bun is a small loaf.", "stone": "A river stone, not a loaf."}
    for version, labels in labels_of.items():
        register(catalog, folder, "ours", version, ["text"])
        rows = [
            {"sample": key, "text": text, "label": label}
            for (key, text), label in zip(texts.items(), labels, strict=True)
        ]
        publish(catalog, Cell("ours", version, "text"), rows, embedder)
    return FeatureStore(catalog)


def test_a_query_of_another_space_is_told_the_spaces_that_there_are(
    features: FeatureStore, photos: dict[str, Path]
) -> None:
    spaces = r"wordllama \(space wordllama-[0-9a-f]+\)"
    for query in ([1.0, 2.0], photos["flower"]):
        with pytest.raises(UserError, match=f"available: {spaces}"):
            keys(features, query)
    with pytest.raises(UserError, match=f"has no embedder 'minilm'; it has: {spaces}"):
        keys(features, "river", embedder="minilm")


def test_words_need_a_text(features: FeatureStore) -> None:
    with pytest.raises(UserError, match="mode 'text' takes a text or an id"):
        keys(features, [1.0], mode="text")
    for wrong in ({"mode": "fuzzy"}, {"group_by": "colour"}, {"find": "friends"}):
        with pytest.raises(UserError, match="there are: "):
            keys(features, "river", **wrong)


@pytest.mark.parametrize(
    "where",
    [
        "random() < 0.5",
        "score > RANDOM ()",
        "day < now()",
        "day = current_date",
        "day = CURRENT_DATE()",
        "at < current_timestamp",
        "uuid() > 'a'",
        "label = 'x' AND today() > day",
    ],
)
def test_a_filter_whose_value_changes_is_refused(where: str) -> None:
    with pytest.raises(UserError, match=r"another value each time, so that the same rows") as caught:
        check_filter(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "where",
    ["label = 'now()'", "`current_date` > 3", "now > 3", "random_state = 1", "randomness(x) = 1", "known(x)"],
)
def test_names_like_those_of_changing_functions(where: str) -> None:
    assert check_filter(where) == where


@pytest.mark.parametrize(
    "query", ["nosuch.jpg", "my photo.PNG", "./x", "/no/such", "a/b/film.mp4", "notes.txt"]
)
def test_a_query_that_looks_like_a_path_and_is_none(query: str) -> None:
    with pytest.raises(UserError, match="looks like a path, and there is no such file"):
        check_query(query)
    check_query(query, "text")


@pytest.mark.parametrize(
    "query",
    ["a cat", "either/or", "node.js", "St. Gallen", "1.5", "id:x.jpg", "see https://a.b/c.jpg", "U.S.A."],
)
def test_words_are_no_path(query: str) -> None:
    check_query(query)
