"""Video through the whole path, inline and through Ray; search of scenes by words, pictures and video."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_assets.operations.status import cell_status
from mm_resources.storage.store import LARGE_BYTES
from tests.kernels.videos import encode_video

SPEC = """
name: films
version: v1
gates: {max_failed_share: 0.5}
sources:
  - {name: clips, modality: video, uri: "clips/**", label: {from: parent_dir}}
  - {name: sound, modality: audio, track_of: clips}
"""


def slide(photo: Path, seconds: float) -> list[Any]:
    """Return a video of a camera that moves over a photograph."""
    from PIL import Image

    with Image.open(photo) as image:
        whole = np.asarray(image.convert("RGB").resize((360, 240)))
    return [np.ascontiguousarray(whole[:, i : i + 320]) for i in range(round(seconds * 10))]


@pytest.fixture
def films(tmp_path: Path, platform: Any, photos: dict[str, Path]) -> Any:
    folder = tmp_path / "films" / "clips"
    for label in ("travel", "noise"):
        (folder / label).mkdir(parents=True)
    trip = encode_video(
        [*slide(photos["temple"], 3.0), *slide(photos["flower"], 2.0)], "matroska", sound="libopus"
    )
    (folder / "travel" / "trip.mkv").write_bytes(trip)
    (folder / "travel" / "cut.mp4").write_bytes(encode_video(slide(photos["temple"], 3.0))[:-2_000])
    dice = np.random.default_rng(0)
    large = encode_video(
        (dice.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(32)), "avi", "ffv1"
    )
    (folder / "noise" / "large.avi").write_bytes(large)
    assert len(large) > LARGE_BYTES, "a film that is read from its file"
    (tmp_path / "films" / "spec.yaml").write_text(SPEC)
    platform.register(tmp_path / "films" / "spec.yaml")
    return platform


def test_scenes_are_found_by_words_pictures_and_video(
    films: Any, mode: str, tmp_path: Path, photos: dict[str, Path]
) -> None:
    results = films.backfill("films@v1", mode=mode)
    result = results["video"]
    assert result.status == "published", result.reason
    assert result.computed == {"fetch": 3, "probe": 3, "segment": 2, "embed:conse_frames": 3}
    cell = films.cell("films@v1", "video")
    counts = cell_status(films.catalog, cell)
    assert (counts["discovered"], counts["published"], counts["failed"], counts["segments"]) == (3, 2, 1, 3)
    assert counts["failures"] == {"truncated": 1}
    probed = (
        films.catalog.tables.read("validated_samples", cell, ["key", "frames", "audio_codec", "width"])
        .read_all()
        .to_pylist()
    )
    assert {row["key"]: (row["frames"], row["audio_codec"], row["width"]) for row in probed} == {
        "travel/trip.mkv": (50, "opus", 320),
        "noise/large.avi": (32, None, 640),
    }

    def best(query: Any) -> dict[str, Any]:
        hit: dict[str, Any] = films.features.search(
            query, dataset_version="films@v1", modality="video", k=1
        ).to_pylist()[0]
        return hit

    temple, flower = "seconds=0.000-3.000", "seconds=3.000-5.000"
    assert [
        best(query)["span"] for query in ("a flower", "a temple", photos["flower"], photos["temple"])
    ] == [
        flower,
        temple,
        flower,
        temple,
    ]
    assert best(encode_video(slide(photos["flower"], 1.0)))["span"] == flower
    chain = films.features.explain(best("a flower")["feature_id"])
    assert (chain["embedder"]["name"], chain["embedder"]["preprocessing"]["frames"]) == ("conse_frames", 4)
    assert re.fullmatch("[0-9a-f]{64}", chain["embedder"]["weights_hash"])

    assert results["audio"].computed == {"fetch": 1, "probe": 1, "segment": 1, "embed:aisfx": 1}, (
        "the one that has sound"
    )
    joined = (
        films.features.training_set("films@v1", modality=["video", "audio"], columns=["label"])
        .to_arrow()
        .to_pylist()
    )
    assert {(row["video__label"], row["audio__label"]) for row in joined} == {("travel", "travel")}, (
        "joined with its video by entity"
    )
    again = films.backfill("films@v1")
    assert {(item.status, *item.computed.values()) for item in again.values()} == {("unchanged", 0, 0, 0, 0)}
