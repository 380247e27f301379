"""A backfill with nothing to do starts no Dagster, no child and no engine of media, models or plots."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.dagster_home import open_instance
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.settings import DEFAULT_HOME, DEFAULT_STORE, Settings
from tests.assets.conftest import Run, Templates, environment, run_in

# Written by every Python process that finds it on its path: what it has imported when it ends, what it starts.
RECORDER = """
import atexit, json, os, sys
FOLDER = {folder!r}
started = []
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"):
        started.append([event, repr(arguments)[:200]])
sys.addaudithook(hook)
def write():
    with open(os.path.join(FOLDER, f"{{os.getpid()}}.json"), "w") as sink:
        json.dump({{"modules": sorted(sys.modules), "started": started}}, sink)
atexit.register(write)
"""
NEEDLESS = {
    *(
        "torch",
        "transformers",
        "lancedb",
        "matplotlib",
        "polars",
        "pandera",
        "ray",
        "dagster",
        "sqlalchemy",
        "alembic",
    ),
    *(
        "av",
        "decord",
        "soundfile",
        "onnxruntime",
        "PIL",
        "py3langid",
        "scipy",
        "sentence_transformers",
        "open_clip",
    ),
}


CELL = Cell("notes", "v1", "text")


def write_spec(work: Path) -> None:
    lines = [json.dumps({"id": i, "text": f"Number {i} is a short text about birds."}) for i in range(6)]
    (work / "notes.jsonl").write_text("\n".join(lines))
    (work / "letters").mkdir()
    (work / "letters" / "a.txt").write_text("A letter about something else.")
    spec = f"""
name: notes
version: v1
embedders: {{text: [wordllama]}}
sources:
  - {{name: notes, modality: text, uri: {work}/notes.jsonl, record: {{text: text, id: id}}}}
  - {{name: letters, modality: text, uri: {work}/letters}}
"""
    (work / "notes.yaml").write_text(spec)


def publish(work: Path) -> None:
    write_spec(work)
    mm = run_in(work)
    assert mm("register", "notes.yaml").returncode == 0
    (cell,) = cells(mm)
    assert (cell["status"], cell["computed"]["fetch"]) == ("published", 7)


@pytest.fixture
def work(templates: Templates) -> Path:
    """A folder in which ``notes@v1`` has been published."""
    return templates.restore("unchanged", publish)


@pytest.fixture
def published(work: Path) -> Path:
    return work


def cells(run: Run, **more: str) -> list[dict[str, Any]]:
    done = run("backfill", "notes@v1", "--json", **more)
    assert done.returncode == 0, (done.stdout, done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
    return found


def runs(work: Path) -> set[str]:
    """The runs that the Dagster home in `work` knows."""
    with environment(), pytest.MonkeyPatch.context() as patched:
        patched.chdir(work)
        patched.delenv("DAGSTER_HOME", raising=False)  # of a platform that the worker has published
        with open_instance(Settings.from_environment()) as instance:
            return {run.run_id for run in instance.get_runs()}


def test_it_starts_what_it_needs(published: Path, mm_process: Run, tmp_path: Path) -> None:
    before, recorded = runs(published), tmp_path / "recorded"
    recorded.mkdir()
    (tmp_path / "sitecustomize.py").write_text(RECORDER.format(folder=str(recorded)))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    (cell,) = cells(mm_process, PYTHONPATH=path)
    assert (cell["status"], cell["reused"]["fetch"], cell["computed"]["fetch"]) == ("unchanged", 7, 0)
    (process,) = [json.loads(file.read_text()) for file in recorded.iterdir()]
    assert {name.partition(".")[0] for name in process["modules"]} & NEEDLESS == set()
    assert process["started"] == []
    assert runs(published) == before


def test_its_work_is_in_the_ledger(published: Path, mm: Run) -> None:
    catalog = Catalog.open(str(published / DEFAULT_STORE))
    computed = {work.stage for work in catalog.ledger.stage_work(CELL)}
    (again,) = cells(mm)
    rows = catalog.ledger.run_rows(again["run_id"])
    assert {row["stage"] for row in rows} == computed
    assert all(row["unchanged"] for row in rows)
    assert {row["kernel"]: row["reused"] for row in rows if row["kernel"]} == again["reused"]


def test_another_dagster_home_is_told(published: Path, mm: Run) -> None:
    before = runs(published)
    shutil.rmtree(published / DEFAULT_HOME)
    (told,) = cells(mm)
    assert told["status"] == "unchanged"
    assert runs(published) == {told["run_id"]}
    assert told["run_id"] not in before
    (cell,) = cells(mm)
    assert (cell["status"], runs(published)) == ("unchanged", {told["run_id"]})


@pytest.mark.parametrize("what", ["source", "blob", "stage"])
def test_a_run_finds_out_where_anything_differs(published: Path, mm: Run, what: str) -> None:
    before, catalog = runs(published), Catalog.open(str(published / DEFAULT_STORE))
    if what == "source":
        (published / "letters" / "b.txt").write_text("A letter that came later.")
    elif what == "blob":
        for pack in Path(catalog.store.root).glob("blobs/**/*"):
            if pack.is_file() and ".lance" not in str(pack):
                pack.unlink()
    else:
        catalog.tables.mark_stale("segments", CELL)
    (cell,) = cells(mm)
    assert cell["run_id"] in runs(published) - before
    if what == "source":
        assert "1 added (b.txt)" in cell["notes"][0]
