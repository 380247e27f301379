"""Sound through the whole path: two embedders, transcripts, and search by words with the secondary embedder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.backfill_plan import plan_cell
from mm_assets.operations.embedder_trial import try_embedder
from mm_assets.operations.status import cell_status
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_resources.resources import default_embedder
from tests.kernels.sounds import encode_audio, noise, tone

SPEC = """
name: sounds
version: v1
gates: {max_failed_share: 0.5}
embedders: {audio: [aisfx, minilm]}
sources:
  - {name: calls, modality: audio, uri: "calls/*", table: {uri: calls.csv, key: file, columns: [label, transcript]}}
"""
TEXTS = {
    "hiss.wav": ("noise", "Steam escapes from a boiling kettle."),
    "beep.flac": ("signal", "The train is about to depart."),
}


@pytest.fixture
def sounds(tmp_path: Path, platform: Any) -> Any:
    folder = tmp_path / "sounds"
    (folder / "calls").mkdir(parents=True)
    (folder / "calls" / "hiss.wav").write_bytes(encode_audio(noise(2.0)))
    (folder / "calls" / "beep.flac").write_bytes(encode_audio(tone(880.0, 2.0), "FLAC"))
    (folder / "calls" / "long.ogg").write_bytes(encode_audio(noise(21.0, seed=3), "OGG"))
    (folder / "calls" / "cut.wav").write_bytes(encode_audio(noise(2.0, seed=1))[:20_000])
    with (folder / "calls.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["file", "label", "transcript"], *([name, *both] for name, both in TEXTS.items())]
        )
    (folder / "spec.yaml").write_text(SPEC)
    platform.register(folder / "spec.yaml")
    return platform


def test_sound_is_found_by_sound_and_by_words(sounds: Any, mode: str, tmp_path: Path) -> None:
    result = sounds.backfill("sounds@v1", mode=mode)["audio"]
    assert result.status == "published", result.reason
    assert (result.computed["embed:aisfx"], result.computed["embed:minilm"]) == (5, 2)
    cell = sounds.cell("sounds@v1", "audio")
    counts = cell_status(sounds.catalog, cell)
    assert (
        counts["discovered"],
        counts["published"],
        counts["failed"],
        counts["segments"],
        counts["features"],
    ) == (4, 3, 1, 5, 7)
    assert counts["failures"] == {"truncated": 1}
    pin = sounds.registry.pins.get(cell)
    assert [(table.embedder, table.primary, table.rows) for table in pin.tables] == [
        ("aisfx", True, 5),
        ("minilm", False, 2),
    ]
    assert pin.tables[0].weights_hash != pin.tables[1].weights_hash

    hiss = tmp_path / "sounds" / "calls" / "hiss.wav"
    near = sounds.features.search(hiss, dataset_version="sounds@v1", modality="audio", k=5).to_pylist()
    assert near[0]["key"] == "hiss.wav"
    assert near[0]["score"] > 0.999
    assert {row["key"] for row in near[1:4]} == {"long.ogg"}, "noise lies nearer to noise than a tone does"
    words = sounds.features.search(
        "railway", dataset_version="sounds@v1", modality="audio", embedder="minilm", k=1
    ).to_pylist()
    assert (words[0]["key"], words[0]["label"], words[0]["text"]) == (
        "beep.flac",
        "signal",
        TEXTS["beep.flac"][1],
    )
    chain = sounds.features.explain(words[0]["feature_id"])
    assert chain["embedder"]["name"] == "minilm"
    assert sounds.backfill("sounds@v1")["audio"].status == "unchanged"


def test_a_corrected_transcript_is_embedded_anew(sounds: Any, tmp_path: Path) -> None:
    """The same sound with another transcript: its text vector must follow the transcript."""
    sounds.backfill("sounds@v1")
    table = tmp_path / "sounds" / "calls.csv"
    table.write_text(table.read_text().replace("The train is about to depart.", "A recipe for apple pie."))
    spec = tmp_path / "sounds" / "spec.yaml"
    spec.write_text(SPEC.replace("version: v1", "version: v2"))
    sounds.register(spec)
    result = sounds.backfill("sounds@v2")["audio"]
    assert (result.computed["embed:aisfx"], result.computed["embed:minilm"]) == (0, 1)
    found = [
        sounds.features.search(
            "A recipe for apple pie.", dataset_version=version, modality="audio", embedder="minilm", k=1
        ).to_pylist()[0]
        for version in ("sounds@v1", "sounds@v2")
    ]
    assert (found[1]["key"], round(found[1]["score"], 3)) == ("beep.flac", 1.0)
    assert found[0]["score"] < 0.9, "the earlier version still says what it said"


def test_an_embedder_is_tried_on_a_sample(published: Any) -> None:
    """The current embedder agrees with itself, and reuses its cached vectors."""
    cell = published.cell("tiny@v1", "text")
    same = try_embedder(published.catalog, cell, "minilm", 10)
    assert (same.current, same.embedder, same.sample, same.computed, same.overlap) == (
        "minilm",
        "minilm",
        2,
        0,
        1.0,
    )
    assert same.seconds_per_segment is None
    assert {item.of for item in same.neighbours} == {"pets: s1", "food: s2"}
    with pytest.raises(UserError, match="conse reads image, not text"):
        try_embedder(published.catalog, cell, "conse", 10)


@pytest.mark.slow
def test_a_transcriber_that_hears_nothing_says_so(sounds: Any, tmp_path: Path) -> None:
    """Noise is no speech: Whisper is not run, no text is written, and nothing fails."""
    spec = tmp_path / "sounds" / "spec.yaml"
    spec.write_text(SPEC.replace("version: v1", "version: v2\ntranscribe: {audio: whisper}"))
    sounds.register(spec)
    result = sounds.backfill("sounds@v2")["audio"]
    assert result.status == "published", result.reason
    assert result.computed["transcribe:whisper"] == 3, "the windows whose text the source does not give"
    cell = sounds.cell("sounds@v2", "audio")
    texts = sounds.catalog.tables.read("segments", cell, ["text"]).read_all()["text"].to_pylist()
    for kernel in plan_cell(sounds.catalog, cell, default_embedder(get("audio"))):
        assert kernel.computed == 0, f"a plan of what is done computes nothing, and {kernel} would"
    assert sorted(text for text in texts if text) == sorted(text for _, text in TEXTS.values())
    assert {event["stage"] for event in sounds.catalog.failures.read(cell).read_all().to_pylist()} == {
        "sample_metadata"
    }
