"""Training on published features: a linear probe, media beside the vectors, rows through Ray."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from tests.assets.conftest import Platform, platforms

SPEC = """
name: notes
version: v1
embedders: {text: [wordllama]}
sources:
  - {name: notes, modality: text, uri: notes.jsonl, record: {id: id, text: text, label: topic}}
"""
WORDS = {
    "rivers": "river lake sea boat stream water bank flood bridge fish harbour wave shore delta island canoe ferry tide rain spring "
    "swamp dam mill reed current ship anchor sail port coast",
    "bread": "bread loaf flour rye salt yeast oven baker crust dough wheat butter slice cake roll toast kitchen sugar egg cream "
    "jam breakfast barley oats honey knead recipe biscuit pastry pie",
}


def texts(count: int) -> Iterator[dict[str, str]]:
    """Yield bags of words of one topic each; not near-duplicates, which would share a split."""
    dice = random.Random(0)
    for topic, words in WORDS.items():
        for i in range(count):
            yield {"id": f"{topic}-{i}", "text": " ".join(dice.sample(words.split(), 10)), "topic": topic}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("training")
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, texts(100))) + "\n")
    (folder / "v1.yaml").write_text(SPEC)
    with platforms() as make:
        platform = make(folder)
        assert platform.backfill(platform.register(folder / "v1.yaml"))["text"].status == "published"
        yield platform


def test_a_linear_probe_learns_the_labels(notes: Platform) -> None:
    from examples.linear_probe import accuracy, train  # here: imports torch, which every worker would load

    probe, labels, manifest = train(notes.features, "notes@v1", "text", epochs=5)
    assert labels == ["bread", "rivers"]
    assert accuracy(notes.features, "notes@v1", "text", probe, labels, "test") > 0.9, "on unseen rows"
    probe.weight.data.neg_()
    probe.bias.data.neg_()
    assert accuracy(notes.features, "notes@v1", "text", probe, labels, "test") < 0.1
    again = notes.features.training_set(manifest=json.loads(json.dumps(manifest)))
    assert again.to_arrow().num_rows == manifest["rows"] > 100


@pytest.mark.parametrize("workers", [0, 1])
def test_media_stand_beside_their_vectors(notes: Platform, workers: int) -> None:
    chosen = notes.features.training_set("notes@v1", modality="text", columns=["label", "text"])
    loader = chosen.to_torch(batch_size=64, shuffle=True, seed=1, workers=workers, media=True)
    seen = 0
    for batch in loader:
        assert [content_hash(data) for data in batch["media"]] == batch["content_hash"]
        assert [data.decode() for data in batch["media"]] == batch["text"]
        assert set(batch["span"]) == {"full"} or all(span.startswith("chars=") for span in batch["span"])
        seen += len(batch["media"])
    assert seen == chosen.manifest["rows"]
    assert "media" not in next(iter(chosen.to_torch()))


@pytest.mark.usefixtures("ray_cluster")
def test_rows_through_ray(notes: Platform) -> None:
    chosen = notes.features.training_set("notes@v1", modality="text", columns=["label", "text"])
    expected = {row["feature_id"]: row for row in chosen.to_arrow().to_pylist()}
    found: list[dict[str, Any]] = chosen.to_ray(media=True, blocks=3).take_all()
    batch = next(iter(chosen.to_ray().iter_batches(batch_size=32, batch_format="numpy")))
    assert batch["vector"].shape == (32, chosen.manifest["tables"][0]["dimension"])
    assert batch["vector"].dtype == np.float32
    assert len(found) == len(expected)
    for row in found:
        known = expected.pop(row["feature_id"])
        assert row["label"] == known["label"]
        assert row["media"].decode() == known["text"]
        np.testing.assert_array_equal(row["vector"], np.asarray(known["vector"], np.float32))
    assert not expected


def test_a_damaged_medium_is_refused_where_it_is_read(notes: Platform) -> None:
    chosen = notes.features.training_set("notes@v1", modality="text")
    loader = chosen.to_torch(batch_size=16, media=True)
    assert len(pickle.dumps(chosen._rows.reader(media=True))) < 200 * 8 + 10_000, (
        "places alone travel to workers, no table"
    )
    (pack,) = Path(notes.store.path("blobs/packs")).glob("*.pack")
    whole = pack.read_bytes()
    try:
        pack.write_bytes(whole.replace(b"flour", b"flout"))
        with pytest.raises(SampleError, match=r"does not hold|damaged|hash"):
            list(loader)
    finally:
        pack.write_bytes(whole)
