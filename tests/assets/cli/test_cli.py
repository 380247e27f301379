"""The `mm` command as a user runs it: a process of its own, its exit code, its JSON."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.assets.cli.shapes import SHAPES, mismatches
from tests.assets.conftest import Run


def loaded(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_from_a_folder_to_search(mm: Run, dataset: Path) -> None:
    folder = dataset.parent
    dataset.unlink()
    made = loaded(mm("init", folder, "--name", "mine", "--json"))
    assert made["dataset_version"] == "mine@v1"
    assert loaded(mm("register", made["spec"], "--json")) == {
        "dataset_version": "mine@v1",
        "new": True,
        "modalities": ["image", "text"],
    }
    plan = loaded(mm("backfill", "mine@v1", "--plan", "--json"))
    assert {cell["modality"]: cell["computed"]["fetch"] for cell in plan["cells"]} == {"image": 3, "text": 2}
    blocked = mm("backfill", "mine@v1", "--json")
    assert blocked.returncode == 1
    assert {cell["status"] for cell in json.loads(blocked.stdout)["cells"]} == {"blocked"}

    done = mm("backfill", "mine@v1", "--override-gate", "a third is broken on purpose", "--json")
    result = loaded(done)
    assert list(mismatches(result, SHAPES["backfill"])) == []
    for cell in result["cells"]:
        assert cell["status"] == "published"
        assert set(cell["computed"]) == {
            "fetch",
            "probe",
            "segment",
            "embed:conse" if cell["modality"] == "image" else "embed:minilm",
        }

    status = loaded(mm("status", "mine@v1", "--json"))
    assert status["dataset_version"] == "mine@v1"
    for cell in status["cells"]:
        counts = "modality discovered ingested valid kept segments features published dropped failed failures data_version published_at"
        assert set(counts.split()) <= set(cell)
        assert cell["discovered"] == cell["published"] + cell["dropped"] + cell["failed"] == 3

    hits = loaded(
        mm("search", "a flower", "--dataset-version", "mine@v1", "--modality", "image", "-k", "1", "--json")
    )
    assert list(mismatches(hits, SHAPES["search"])) == []
    assert hits[0]["label"] == "flower"
    anywhere = loaded(
        mm(
            "search",
            "coffee with water",
            "--modality",
            "text",
            "--mode",
            "hybrid",
            "--group-by",
            "sample",
            "--json",
        )
    )
    assert [hit["label"] for hit in anywhere] == ["food", "pets"]
    assert list(mismatches(anywhere, SHAPES["search"])) == []
    chain = loaded(mm("explain", hits[0]["feature_id"], "--json"))
    assert {"source", "blob", "decisions", "segment", "embedder", "run", "dataset_version"} <= set(chain)

    failures = loaded(mm("failures", "mine@v1", "--json"))
    assert list(mismatches(failures, SHAPES["failures"])) == []
    assert {event["error_class"] for event in failures} == {"truncated", "bad_record"}
    assert loaded(mm("failures", "mine@v1", "--class", "truncated", "--json"))[0]["modality"] == "image"
    assert loaded(mm("datasets", "--json")) == [
        {"dataset_version": "mine@v1", "published": {"image": 2, "text": 2}}
    ]
    plan = loaded(mm("backfill", "mine@v1", "--plan", "--json"))
    assert all(set(cell["computed"].values()) == {0} for cell in plan["cells"])


def test_plan_does_nothing(mm: Run, dataset: Path, tmp_path: Path) -> None:
    loaded(mm("register", dataset, "--json"))
    before = sorted(str(path) for path in (tmp_path / "work" / ".mm" / "store").rglob("*"))
    loaded(mm("backfill", "tiny@v1", "--plan", "--json"))
    assert sorted(str(path) for path in (tmp_path / "work" / ".mm" / "store").rglob("*")) == before


def test_mistakes_are_one_line(mm: Run, dataset: Path) -> None:
    one_line_error(mm("backfill", "nope@v1"), "nope@v1", "not registered")
    one_line_error(mm("backfill", "nope"), "DATASET@VERSION")
    one_line_error(mm("register", dataset.parent / "absent.yaml"), "absent.yaml")
    loaded(mm("register", dataset, "--json"))
    one_line_error(mm("backfill", "tiny@v1", "--modality", "smell"), "smell", "image, text")
    nothing = mm("search", "a cat", "--dataset-version", "tiny@v1", "--modality", "image")
    one_line_error(nothing, "nothing is published", "mm backfill tiny@v1")
    one_line_error(mm("explain", "0" * 32), "0" * 32)
    one_line_error(mm("init", dataset.parent / "absent"), "absent")
    dataset.write_text(dataset.read_text().replace("stars: int", "stars: whole"))
    one_line_error(mm("register", dataset), "dataset.yaml", "schema.stars")
    dataset.write_text(dataset.read_text().replace("stars: whole", "stars: float"))
    one_line_error(mm("register", dataset), "frozen")
    dataset.write_text(
        dataset.read_text().replace("version: v1", "version: v2").replace("photos/", "nowhere/")
    )
    nearest = f"the nearest path that exists is {dataset.parent}"
    one_line_error(mm("register", dataset), "nowhere does not exist", nearest)
    (dataset.parent / "nowhere").mkdir()
    (dataset.parent / "nowhere" / "1.jpg").write_bytes(b"x")
    loaded(mm("register", dataset, "--json"))
    shutil.rmtree(dataset.parent / "nowhere")
    one_line_error(mm("backfill", "tiny@v2", "--plan"), "nowhere", "does not exist")
    one_line_error(mm("datasets", MM_STORE="/dev/null/x"), "/dev/null/x")


def test_a_source_of_any_modality_is_registered_by_that_name(mm: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A heron stands in the pond.")
    spec = tmp_path / "mixed.yaml"
    spec.write_text("name: mixed\nversion: v1\nsources:\n- {name: files, modality: auto, uri: '*.txt'}\n")
    done = mm("register", spec)
    assert done.stdout.startswith("mixed@v1 registered: what files contain (modality: auto)\n")
    found = loaded(mm("register", spec, "--json"))
    assert (found["modalities"], found["by_content"]) == ([], True)


def test_env_exports_absolute_paths(mm: Run, tmp_path: Path) -> None:
    done = mm("env")
    assert done.returncode == 0
    exports = dict(re.findall(r"^export (\w+)=(.*)$", done.stdout, re.M))
    assert set(exports) == {"MM_STORE", "DAGSTER_HOME", "MM_DATASETS", "MM_PROFILE"}
    assert exports["MM_STORE"] == str(tmp_path / "work" / ".mm" / "store")
    assert (Path(exports["DAGSTER_HOME"]) / "dagster.yaml").exists()


def test_doctor_calibrates(mm: Run, tmp_path: Path) -> None:
    measured = loaded(
        mm(
            "doctor",
            "--calibrate",
            "--embedder",
            "wordllama",
            "--json",
            MM_CALIBRATION=str(tmp_path / "mine.json"),
        )
    )
    assert measured["file"] == str(tmp_path / "mine.json")
    assert [setting["embedder"] for setting in measured["settings"] if setting["kept"]] == ["wordllama"]
    assert (tmp_path / "mine.json").is_file()
    one_line_error(mm("doctor", "--calibrate", "--embedder", "nobody"), "nobody")


def test_doctor_finds_a_sound_installation_and_an_unsound_store(mm: Run, tmp_path: Path) -> None:
    assert all(finding["ok"] for finding in loaded(mm("doctor", "--json")))
    (tmp_path / "file").write_text("")
    unsound = mm("doctor", "--json", MM_STORE=str(tmp_path / "file" / "store"))
    assert unsound.returncode == 1
    assert [finding["name"] for finding in json.loads(unsound.stdout) if not finding["ok"]] == ["store"]


def test_init_finds_side_tables_labels_and_types(mm: Run, photos: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for i, photo in enumerate([*photos.values()] * 2):
        shutil.copy(photo, folder / f"{i}.JPG")
    with (folder / "info.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "weight", "seen_at"])
        writer.writerows([[f"{i}.JPG", "plant", i + 0.5, "2024-05-01T10:00:00"] for i in range(4)])
    made = loaded(mm("init", folder, "--json"))
    spec = yaml.safe_load(Path(made["spec"]).read_text())
    assert spec["schema"] == {"weight": "float", "seen_at": "timestamp"}
    assert [source["modality"] for source in spec["sources"]] == ["image"]
    assert spec["sources"][0]["table"] == {
        "uri": "info.csv",
        "key": "file",
        "columns": ["label", "weight", "seen_at"],
    }
    loaded(mm("register", made["spec"], "--json"))
    result = loaded(mm("backfill", "zoo@v1", "--json"))
    assert result["cells"][0]["status"] == "published"
    status = loaded(mm("status", "zoo@v1", "--json"))["cells"][0]
    assert (status["published"], status["dropped"]) == (2, 2)
    zoo = ("--dataset-version", "zoo@v1", "--modality", "image")
    sample = loaded(mm("search", "flower", *zoo, "--json"))[0]["sample_id"]
    hits = loaded(mm("search", f"id:{sample}", *zoo, "--where", "user__weight < 1.6", "--json"))
    assert [hit["label"] for hit in hits] == ["plant", "plant"]
    one_line_error(mm("search", "flower", *zoo, "--where", "no_such_column = 1"), "no_such_column")


def test_init_of_a_folder_that_resists(mm: Run, photos: dict[str, Path], tmp_path: Path) -> None:
    """Endings that two modalities share, tables of one name, unreadable tables, columns that no table can hold."""
    folder = tmp_path / "mess [1]"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            shutil.copy(photos["flower" if i % 2 else "temple"], folder / name / f"{i}.dat")
            (folder / name / f"t{i}.dat").write_text(
                f"A plain sentence about the number {i} in folder {name}."
            )
        rows = [
            {
                "text": f"Sentence {i} of the table {name}.",
                "photo.id": i,
                "photo id": i,
                "Stars": i,
                "stars": i,
                "": i,
            }
            for i in range(3)
        ]
        (folder / name / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "broken.parquet").write_bytes(b"no")
    made = loaded(mm("init", folder, "--name", "mess", "--json"))
    assert "cannot be read" in made["skipped"]["broken.parquet"]
    spec = yaml.safe_load(Path(made["spec"]).read_text())
    assert [(source["name"], source["modality"]) for source in spec["sources"]] == [
        ("a-notes", "text"), ("b-notes", "text"), ("mixed", "auto"),
    ]  # fmt: skip
    assert set(spec["schema"]) == {"photo.id", "Stars"}
    loaded(mm("register", made["spec"], "--json"))
    assert {cell["status"] for cell in loaded(mm("backfill", "mess@v1", "--json"))["cells"]} == {"published"}
    hits = loaded(
        mm(
            "search",
            "a sentence",
            "--dataset-version",
            "mess@v1",
            "--modality",
            "text",
            "--where",
            "user__photo_id = 2",
            "--json",
        )
    )
    assert len(hits) == 2
    status = {cell["modality"]: cell for cell in loaded(mm("status", "mess@v1", "--json"))["cells"]}
    assert (status["image"]["discovered"], status["image"]["dropped"], status["text"]["discovered"]) == (
        8,
        6,
        14,
    )
    assert all(cell["failed"] == 0 for cell in status.values())


def test_a_fresh_home_is_opened_by_several_processes_at_once(mm: Run, mm_process: Run, dataset: Path) -> None:
    """Dagster's own first use breaks its SQLite for good when two processes come together."""
    specs = []
    for number in range(2):
        specs.append(dataset.with_name(f"many{number}.yaml"))
        specs[-1].write_text(dataset.read_text().replace("name: tiny", f"name: many{number}"))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda spec: mm_process("register", spec), specs))
    assert [item.returncode for item in done] == [0] * 2, [item.stderr for item in done]
    assert {row["dataset_version"] for row in loaded(mm("datasets", "--json"))} == {
        f"many{number}@v1" for number in range(2)
    }
    ran = mm("backfill", "many1@v1", "--modality", "text", "--json")
    assert ran.returncode == 0, ran.stderr


def test_the_hub_profile_says_what_is_missing_before_any_run(mm: Run, dataset: Path) -> None:
    """No hub can be reached: one line, no run, and nothing of the bundled models in its place."""
    offline = {"MM_PROFILE": "hub", "HF_HUB_OFFLINE": "1", "HF_HOME": str(dataset.parent / "empty")}
    assert mm("register", dataset).returncode == 0
    one_line_error(
        mm("backfill", "tiny@v1", "--modality", "text", **offline),
        "st:sentence-transformers/all-MiniLM-L6-v2",
        "cannot be reached",
    )
    assert loaded(mm("status", "tiny@v1", "--json"))["cells"][0]["discovered"] in (0, None)
    examined = mm("doctor", **offline)
    assert examined.returncode == 1
    assert "embedder open_clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in examined.stdout
    one_line_error(mm("status", "tiny@v1", MM_PROFILE="cloud"), "'cloud' is not known", "bundled, hub")
