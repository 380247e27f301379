"""Every command on a store on S3, with endpoint and credentials from the environment alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_resources.retrieval.feature_store import FeatureStore
from tests.assets.conftest import Maker, Platform, Run
from tests.assets.whole_path import test_video as test_film
from tests.assets.whole_path.test_video import films
from tests.conftest import SENTENCES
from tests.s3 import BUCKET, S3, SECRET

__all__ = ["films"]

ROOT = f"s3://{BUCKET}/commands"


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    return json.loads(done.stdout)


Command = Callable[..., Any]


@pytest.fixture
def run(mm: Run, s3: S3) -> Command:
    """Run a command on the store and return what it prints."""

    def command(*words: object) -> Any:
        return said(mm(*words, "--json", MM_STORE=ROOT, **s3.environment()))

    return command


def test_from_a_spec_to_a_training_set(run: Command, dataset: Path) -> None:
    run("register", dataset)
    (cell,) = run("backfill", "tiny@v1", "--modality", "text")["cells"]
    assert (cell["status"], cell["computed"]["embed:minilm"]) == ("published", 2)
    (cell,) = run("backfill", "tiny@v1", "--modality", "text")["cells"]
    assert cell["status"] == "unchanged"
    (hit,) = run("search", "hot coffee", "--dataset-version", "tiny@v1", "--modality", "text", "-k", 1)
    assert hit["label"] == "food"
    # Training code needs no Dagster.
    store = FeatureStore.open(ROOT)
    ts = store.training_set("tiny@v1", modality="text", columns=["label"])
    rows = ts.to_arrow()
    assert sorted(rows["label"].to_pylist()) == sorted(topic for _, _, topic in SENTENCES)
    assert store.training_set(manifest=json.loads(json.dumps(ts.manifest))).to_arrow().equals(rows)
    assert len(next(iter(ts.to_torch(batch_size=2)))["vector"]) == 2


@pytest.mark.slow
def test_all_commands(run: Command, s3: S3, dataset: Path, tmp_path: Path) -> None:
    run("register", dataset)
    cells = {cell["modality"]: cell for cell in run("backfill", "tiny@v1")["cells"]}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "image": "published",
        "text": "published",
    }
    assert cells["image"]["computed"]["fetch"] == 3
    again = run("backfill", "tiny@v1", "--modality", "text")["cells"]
    assert [cell["status"] for cell in again] == ["unchanged"]

    (status,) = [cell for cell in run("status", "tiny@v1")["cells"] if cell["modality"] == "image"]
    assert (status["discovered"], status["published"], status["failed"]) == (3, 2, 1)
    (failure,) = [event for event in run("failures", "tiny@v1") if event["modality"] == "image"]
    assert failure["error_class"] == "truncated"
    hits = run("search", "a red flower", "--dataset-version", "tiny@v1", "--modality", "image", "-k", 2)
    assert [hit["label"] for hit in hits] == ["flower", "temple"]
    chain = run("explain", hits[0]["feature_id"])
    assert chain["blob"]["path"].startswith("blobs/packs/")
    assert (
        run("redrive", "tiny@v1", "--class", "truncated", "--modality", "image")["cells"][0]["computed"][
            "probe"
        ]
        == 1
    )

    # A second version that shares its blobs and vectors with the first.
    second = dataset.with_name("second.yaml")
    second.write_text(dataset.read_text().replace("version: v1", "version: v2\nparent: v1"))
    lines = (dataset.parent / "sentences.jsonl").read_text()
    (dataset.parent / "sentences.jsonl").write_text(
        lines + json.dumps({"id": "s3", "text": "Rain falls on the roof.", "topic": "sky"}) + "\n"
    )
    run("register", second)
    (cell,) = run("backfill", "tiny@v2", "--modality", "text")["cells"]
    assert (cell["computed"]["embed:minilm"], cell["reused"]["embed:minilm"]) == (1, 2)

    assert {part["part"] for part in run("upkeep")} >= {"blobs", "cache", "stages", "features"}
    assert run("gc", "--older-than-days", 0)["condemned"] == 0
    assert run("doctor", "--verify")["bad"] == []
    assert run("datasets")
    assert FeatureStore.open(ROOT).decisions("tiny@v1", modality="image").num_rows == 2

    kept = [path for folder in (tmp_path, s3.folder) for path in folder.rglob("*") if path.is_file()]
    assert len(kept) > 100
    assert not any(SECRET.encode() in path.read_bytes() for path in kept)


@pytest.fixture
def platform(new_platform: Maker, s3: S3, tmp_path: Path) -> Platform:
    return new_platform(tmp_path / "platform", f"s3://{BUCKET}/films")


@pytest.mark.slow
def test_films_and_their_sound(films: Any, tmp_path: Path, photos: dict[str, Path], s3: S3) -> None:
    """Large videos are objects of their own, uploaded in parts and read from local copies."""
    test_film.test_scenes_are_found_by_words_pictures_and_video(films, "inline", tmp_path, photos)
    assert [key for key in s3.keys("films/blobs/sha256") if "index.lance" not in key]


@pytest.mark.parametrize("broken", ["AWS_ENDPOINT_URL", "bucket", "profile", "password"])
def test_a_mistake_is_one_clear_line(mm: Run, s3: S3, broken: str) -> None:
    environment, root = s3.environment(), ROOT
    if broken == "AWS_ENDPOINT_URL":
        environment[broken] = "http://127.0.0.1:9"
    elif broken == "bucket":
        root = "s3://no-such-bucket/store"
    elif broken == "profile":
        environment = {"AWS_PROFILE": "nobody"}
    else:
        root = f"s3://someone:{SECRET}@{BUCKET}/store"
    done = mm("doctor" if broken == "bucket" else "datasets", MM_STORE=root, **environment)
    if broken == "bucket":
        assert done.returncode == 1
        assert "bucket does not exist" in " ".join(done.stdout.split())
        return
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    words = {"AWS_ENDPOINT_URL": "registry", "profile": "nobody", "password": "credentials"}
    assert words[broken] in done.stderr
