"""A version keeps the splits of its parent, and reports changed sources."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_resources.monitoring.version_diff import diff
from tests.assets.conftest import platforms

SPEC = """
name: walks
version: {version}
{parent}
embedders: {{text: [wordllama]}}
splits: {{train: 0.5, test: 0.5}}
gates: {{max_failed_share: 0.5}}
curation: {{rules: {{exact_duplicate: {{action: flag}}}}}}
sources:
  - {{name: photos, modality: image, uri: "photos/*.png"}}
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text, link: photo}}}}
"""
COUNT = 12


def picture(seed: int, path: Path) -> None:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)).save(path)


def write_notes(folder: Path, names: list[str]) -> None:
    notes = [
        {"id": f"n{i}", "text": f"Picture number {i} shows noise of many colours.", "photo": name}
        for i, name in enumerate(names)
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)) + "\n")


def publish(root: Path) -> None:
    """Publish ``walks@v1``, whose sources are in the folder `walks`."""
    folder = root / "walks"
    (folder / "photos").mkdir(parents=True)
    for i in range(COUNT):
        picture(i, folder / "photos" / f"{i}.png")
    (folder / "photos" / "dead.png").symlink_to("nowhere.png")
    write_notes(folder, [f"{i}.png" for i in range(COUNT)])
    with platforms() as make:
        platform = make(root)
        register(platform, folder, "v1")
        assert {result.status for result in platform.backfill("walks@v1").values()} == {"published"}


@pytest.fixture
def walks(templates: Any, new_platform: Any) -> tuple[Any, Path]:
    root = templates.restore("walks", publish)
    return new_platform(root), root / "walks"


def register(platform: Any, folder: Path, version: str, parent: str = "") -> None:
    spec = folder / f"{version}.yaml"
    spec.write_text(SPEC.format(version=version, parent=f"parent: {parent}" if parent else ""))
    platform.register(spec)


def splits(platform: Any, version: str, modality: str) -> dict[str, str]:
    rows = platform.features.decisions(f"walks@{version}", modality)
    return dict(zip(rows["key"].to_pylist(), rows["split"].to_pylist(), strict=True))


def test_a_renamed_file_keeps_its_split_and_takes_its_caption_along(walks: tuple[Any, Path]) -> None:
    """Twelve renamed pictures: by the hashes of their new names about six would change their split."""
    platform, folder = walks
    before = splits(platform, "v1", "image")
    assert set(before.values()) == {"train", "test"}
    for i in range(COUNT):
        (folder / "photos" / f"{i}.png").rename(folder / "photos" / f"renamed-{i}.png")
    write_notes(
        folder, [f"renamed-{i}.png" for i in range(COUNT)] + [f"renamed-{i}.png" for i in range(COUNT)]
    )
    register(platform, folder, "v2", parent="v1")
    # Texts first: their splits follow the pictures' content, whose cell has not run yet.
    for modality in ("text", "image"):
        result = platform.backfill("walks@v2", modality)[modality]
        assert result.status == "published", result.reason
    after = splits(platform, "v2", "image")
    assert {f"renamed-{key}": split for key, split in before.items()} == after
    notes = splits(platform, "v2", "text")
    assert [notes[f"n{i}"] for i in range(2 * COUNT)] == [
        after[f"renamed-{i % COUNT}.png"] for i in range(2 * COUNT)
    ]
    assert {result.status for result in platform.backfill("walks@v2").values()} == {"unchanged"}
    moved = diff(platform.catalog, platform.cell("walks@v1", "image"), platform.cell("walks@v2", "image"))
    # The broken link is the one that stayed.
    assert (moved.moved, moved.same, moved.added, moved.removed, moved.altered) == (COUNT, 1, 0, 0, 0)
    assert moved.vectors is not None
    assert moved.vectors.centroid_cosine == pytest.approx(1)


def test_what_moved_between_two_versions(walks: tuple[Any, Path]) -> None:
    platform, folder = walks
    photos = folder / "photos"
    (photos / "0.png").unlink()
    (photos / "1.png").rename(photos / "moved.png")
    picture(77, photos / "2.png")
    picture(78, photos / "new.png")
    shutil.copy(photos / "4.png", photos / "4-again.png")
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:60])
    register(platform, folder, "v2", parent="v1")
    spec = (folder / "v2.yaml").read_text()
    (folder / "v3.yaml").write_text(
        spec.replace("version: v2", "version: v3").replace("{action: flag}", "{action: drop}")
    )
    platform.register(folder / "v3.yaml")
    for version in ("v2", "v3"):
        assert platform.backfill(f"walks@{version}", "image")["image"].status == "published"
    first, second, third = (platform.cell(f"walks@{version}", "image") for version in ("v1", "v2", "v3"))
    found = diff(platform.catalog, first, second)
    assert (found.added, found.removed, found.altered, found.moved) == (2, 1, 2, 1)
    assert found.same == COUNT + 1 - 4
    assert found.examples == {
        "added": ["4-again.png", "new.png"],
        "removed": ["0.png"],
        "altered": ["2.png", "3.png"],
        "moved": ["moved.png"],
    }
    assert found.decisions == [{"from": "published", "to": "failed", "samples": 1, "examples": ["3.png"]}]
    assert found.resplit == 0
    assert found.vectors is not None
    assert (found.vectors.before, found.vectors.after) == (COUNT, COUNT)
    assert 0.5 < (found.vectors.centroid_cosine or 0) < 1
    stricter = diff(platform.catalog, second, third)
    # Of two copies, the first by key is kept.
    (decision,) = stricter.decisions
    assert decision == {
        "from": "published",
        "to": "dropped by exact_duplicate",
        "samples": 1,
        "examples": ["4.png"],
    }
    assert stricter.same == COUNT + 2


def test_flagged_copies_stand_in_one_split(walks: tuple[Any, Path]) -> None:
    platform, folder = walks
    for i in range(COUNT):
        shutil.copy(folder / "photos" / f"{i}.png", folder / "photos" / f"a-copy-{i}.png")
    register(platform, folder, "v2")
    assert platform.backfill("walks@v2", "image")["image"].status == "published"
    found = splits(platform, "v2", "image")
    assert len(found) == 2 * COUNT
    assert all(found[f"{i}.png"] == found[f"a-copy-{i}.png"] for i in range(COUNT))


def test_what_is_placed_stays_although_a_copy_comes_first_by_key(walks: tuple[Any, Path]) -> None:
    platform, folder = walks
    before = splits(platform, "v1", "image")
    for i in range(COUNT):
        shutil.copy(folder / "photos" / f"{i}.png", folder / "photos" / f"!copy-{i}.png")
    register(platform, folder, "v2", parent="v1")
    platform.backfill("walks@v2", "image", dagster=True)
    pages = {
        asset: platform.instance.get_latest_materialization_event(dg.AssetKey(asset))
        .asset_materialization.metadata["summary"]
        .value.replace("\\>", ">")  # as Markdown shows it
        for asset in ("raw_assets", "segments", "feature_views")
    }
    assert "v1: rows 13 -> 25, failed 1 -> 1" in pages["raw_assets"]
    assert "failed here: not_found | 1" in pages["raw_assets"]
    assert "v1: rows 12 -> 24, failed 0 -> 0" in pages["segments"]
    assert "v1: rows" in pages["feature_views"]
    found = splits(platform, "v2", "image")
    assert {key: split for key, split in found.items() if not key.startswith("!")} == before
    assert all(found[f"!copy-{i}.png"] == before[f"{i}.png"] for i in range(COUNT))


def test_a_parent_must_be_registered(walks: tuple[Any, Path]) -> None:
    platform, folder = walks
    from mm_embed_kernels.errors import UserError

    with pytest.raises(UserError, match="walks@v7 is not registered"):
        register(platform, folder, "v8", parent="v7")


def test_drift_is_said_and_changes_nothing(walks: tuple[Any, Path]) -> None:
    platform, folder = walks
    assert platform.backfill("walks@v1", "image")["image"].notes == []
    picture(99, folder / "photos" / "late.png")
    picture(98, folder / "photos" / "0.png")
    (folder / "photos" / "1.png").unlink()
    result = platform.backfill("walks@v1", "image")["image"]
    assert result.status == "unchanged"
    (note,) = result.notes
    assert note == (
        "source photos: 1 added (late.png), 1 removed (1.png), 1 altered (0.png) since walks@v1 was frozen; next: mm register --from walks@v1 --as v2"
    )
    write_notes(folder, ["0.png"])
    assert (
        "source notes: 1 altered (notes.jsonl) since"
        in platform.backfill("walks@v1", "text")["text"].notes[0]
    )
    (folder / "notes.jsonl").unlink()
    assert "source notes: cannot be listed any more" in platform.backfill("walks@v1", "text")["text"].notes[0]


def write_captions(folder: Path, names: list[str]) -> None:
    """Write a note for each photo, unlike all others."""
    notes = [
        {"id": f"n{i}", "text": hashlib.sha256(bytes([i])).hexdigest(), "photo": name}
        for i, name in enumerate(names)
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)) + "\n")


@pytest.mark.parametrize("parent", ["", "v1"])
def test_a_renamed_photo_that_has_equals_moves_none_of_them(
    platform: Any, tmp_path: Path, parent: str
) -> None:
    """Ten pairs of equal photos: by the name of the first of each, half of them would change their split.

    The caption of each photo stands in its photo's split, whichever cell is computed first.
    """
    folder = tmp_path / "pairs"
    (folder / "photos").mkdir(parents=True)
    for i in range(10):
        for name in (f"a{i}.png", f"b{i}.png"):
            picture(i, folder / "photos" / name)
    picture(99, folder / "photos" / "alone.png")
    names = [f"{letter}{i}.png" for i in range(10) for letter in "ab"] + ["alone.png"]
    write_captions(folder, names)
    register(platform, folder, "v1")
    for modality in ("text", "image"):
        assert platform.backfill("walks@v1", modality)[modality].status == "published"
    before = splits(platform, "v1", "image")
    captions = {name: splits(platform, "v1", "text")[f"n{i}"] for i, name in enumerate(names)}
    assert captions == before
    assert all(before[f"a{i}.png"] == before[f"b{i}.png"] for i in range(10))
    assert len(set(before.values())) == 2

    for i in range(10):
        (folder / "photos" / f"a{i}.png").rename(folder / "photos" / f"z{i}.png")
    names = [name.replace("a", "z") if name != "alone.png" else name for name in names]
    write_captions(folder, names)
    register(platform, folder, "v2", parent=parent)
    for modality in ("image", "text"):
        assert platform.backfill("walks@v2", modality)[modality].status == "published"
    after = splits(platform, "v2", "image")
    assert {name: after[name] for name in before if name in after} == {
        name: split for name, split in before.items() if name in after
    }
    assert all(after[f"z{i}.png"] == before[f"a{i}.png"] for i in range(10))
    assert {name: splits(platform, "v2", "text")[f"n{i}"] for i, name in enumerate(names)} == after
