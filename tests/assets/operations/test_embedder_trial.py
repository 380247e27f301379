"""Models that the user names, through the whole path; the checkpoints are made here and mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.embedder_trial import try_embedder
from tests.kernels.checkpoints import open_clip_model, sentence_transformer
from tests.kernels.videos import encode_video, pan


@pytest.fixture
def spec(dataset: Path, tmp_path: Path) -> Path:
    clip, words = (
        open_clip_model(tmp_path / "models" / "clip's own"),
        sentence_transformer(tmp_path / "models" / "words"),
    )
    (dataset.parent / "clips").mkdir()
    for seed in (0, 1):
        (dataset.parent / "clips" / f"{seed}.mp4").write_bytes(encode_video(pan(seed)))
    text = dataset.read_text() + '  - {name: clips, modality: video, uri: "clips/*"}\n'
    text += f'embedders: {{image: [conse, "open_clip:{clip}"], text: ["st:{words}"], video: ["open_clip_frames:{clip}"]}}\n'
    dataset.write_text(text)
    return dataset


@pytest.mark.slow
def test_several_embedders_one_of_them_primary(
    platform: Any, spec: Path, mode: str, photos: dict[str, Path]
) -> None:
    platform.register(spec)
    results = platform.backfill("tiny@v1", mode=mode)
    assert {name: result.status for name, result in results.items()} == {
        "image": "published",
        "text": "published",
        "video": "published",
    }, results
    clip = next(name for name in results["image"].computed if "open_clip" in name).removeprefix("embed:")
    assert results["image"].computed[f"embed:{clip}"] == results["image"].computed["embed:conse"] == 2
    pin = platform.registry.pins.get(platform.cell("tiny@v1", "image"))
    assert [(table.embedder, table.primary, table.rows) for table in pin.tables] == [
        ("conse", True, 2),
        (clip, False, 2),
    ]
    assert pin.tables[1].dimension == 32

    search = platform.features.search
    hit = search(
        photos["flower"], dataset_version="tiny@v1", modality="image", embedder=clip, k=1
    ).to_pylist()[0]
    assert (hit["label"], round(hit["score"], 3)) == ("flower", 1.0)
    assert platform.features.explain(hit["feature_id"])["embedder"]["name"] == clip
    assert search("a flower", dataset_version="tiny@v1", modality="image", k=1)["label"].to_pylist() == [
        "flower"
    ], "by the primary one"
    assert search(photos["flower"], dataset_version="tiny@v1", modality="video", k=2).num_rows == 2, (
        "a picture in the space of frames"
    )
    assert search(encode_video(pan(1)), dataset_version="tiny@v1", modality="video", k=1)[
        "key"
    ].to_pylist() == ["1.mp4"]
    again = platform.backfill("tiny@v1")
    assert {result.status for result in again.values()} == {"unchanged"}


def test_a_model_is_tried_beside_the_current_one(published: Any, tmp_path: Path) -> None:
    name = f"open_clip:{open_clip_model(tmp_path / 'clip')}"
    trial = try_embedder(published.catalog, published.cell("tiny@v1", "image"), name, 10)
    assert (trial.current, trial.embedder, trial.sample, trial.computed, trial.failed) == (
        "conse",
        name,
        2,
        2,
        0,
    )
    assert trial.cell_segments == 2


def test_a_missing_model_stops_the_first_stage(platform: Any, spec: Path) -> None:
    """A model that was there at registration is gone when somebody clicks on Materialize."""
    platform.register(spec)
    (spec.parent.parent / "models" / "words").rename(spec.parent.parent / "models" / "elsewhere")
    result = platform.backfill("tiny@v1", "text")["text"]
    assert result.status == "failed"
    assert result.computed == {}
    assert result.reason.startswith("dataset_registry: embedder st:")
    assert "there is no folder" in result.reason
    assert "\n" not in result.reason
