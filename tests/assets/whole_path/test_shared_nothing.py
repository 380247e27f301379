"""A cluster whose worker shares only the object store with the driver: own folders, home and mount namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mm_resources.catalog import Catalog
from mm_resources.storage.store import Store
from tests.assets.conftest import Run
from tests.cluster import Cluster, can_hide_folders, cluster
from tests.s3 import BUCKET, S3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_hide_folders(), reason="needs a mount namespace of its own (root)"),
]


@pytest.fixture
def apart(tmp_path: Path, s3: S3) -> Iterator[Cluster]:
    """A worker with an empty folder in place of the driver's sources, home and, in one test, store."""
    with cluster() as started, started.worker("apart", hidden=[tmp_path], environment=s3.environment()):
        yield started


def test_cells_on_a_worker_that_sees_the_bucket_alone(apart: Cluster, mm: Run, dataset: Path, s3: S3) -> None:
    store = f"s3://{BUCKET}/{uuid4().hex}"
    assert mm("register", dataset, MM_STORE=store).returncode == 0
    done = mm(
        "backfill", "tiny@v1", "--mode", "ray", "--ray-address", apart.address, "--json", MM_STORE=store
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {cell["modality"]: cell["status"] for cell in json.loads(done.stdout)["cells"]} == {
        "image": "published",
        "text": "published",
    }
    status = json.loads(mm("status", "tiny@v1", "--json", MM_STORE=store).stdout)
    assert {cell["modality"]: (cell["published"], cell["failed"]) for cell in status["cells"]} == {
        "image": (2, 1),
        "text": (2, 1),
    }
    modes = {
        (row["kernel"].partition(":")[0], row["mode"])
        for cell in json.loads(done.stdout)["cells"]
        for row in Catalog(Store(store)).ledger.run_rows(cell["run_id"])
        if row["computed"]
    }
    assert modes == {("fetch", "inline"), ("probe", "ray"), ("segment", "ray"), ("embed", "ray")}, (
        "files of the driver are read by the driver"
    )
    found = mm(
        "search",
        "a flower",
        "--dataset-version",
        "tiny@v1",
        "--modality",
        "image",
        "-k",
        "1",
        "--json",
        MM_STORE=store,
    )
    assert json.loads(found.stdout)[0]["label"] == "flower"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


def test_the_demo_on_a_worker_that_sees_the_bucket_alone(
    apart: Cluster, mm: Run, tmp_path: Path, s3: S3
) -> None:
    """Texts, pictures, sounds and videos with all models; the worker cannot read the demo's files."""
    store = f"s3://{BUCKET}/{uuid4().hex}"
    work, kept = (
        tmp_path / "work",
        {name: value for name, value in os.environ.items() if not name.startswith(("MM_", "DAGSTER_"))},
    )
    command = [
        sys.executable,
        "-m",
        "mm_assets.demo",
        "--mode",
        "ray",
        "--ray-address",
        apart.address,
    ]
    done = subprocess.run(
        command, cwd=work, env={**kept, "MM_STORE": store}, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    cells = {
        cell["modality"]: cell
        for cell in json.loads(mm("status", "demo@v1", "--json", MM_STORE=store).stdout)["cells"]
    }
    assert sorted(cells) == ["audio", "image", "text", "video"]
    for cell in cells.values():
        assert cell["discovered"] == cell["published"] + cell["dropped"] + cell["failed"]
        assert cell["published"] > cell["failed"] > 0, "a few files of each are broken on purpose"
    runs = json.loads(mm("backfill", "demo@v1", "--json", MM_STORE=store).stdout)["cells"]
    assert {cell["status"] for cell in runs} == {"unchanged"}
    modes = {
        (row["kernel"].partition(":")[0], row["mode"])
        for row in Catalog(Store(store)).ledger.read().read_all().to_pylist()
        if row["computed"]
    }
    assert {kernel for kernel, mode in modes if mode == "inline"} == {"fetch"}, (
        "files of the driver are read by the driver"
    )
    assert {kernel for kernel, mode in modes if mode == "ray"} >= {"probe", "segment", "embed", "transcribe"}
    found = mm(
        "search",
        "a cat",
        "--dataset-version",
        "demo@v1",
        "--modality",
        "image",
        "-k",
        "3",
        "--json",
        MM_STORE=store,
    )
    assert [hit["label"] for hit in json.loads(found.stdout)] == ["cat", "cat", "cat"]


def test_a_store_in_a_folder_is_refused_before_any_work(
    apart: Cluster, mm: Run, dataset: Path, tmp_path: Path
) -> None:
    assert mm("register", dataset).returncode == 0
    done = mm("backfill", "tiny@v1", "--modality", "text", "--ray-address", apart.address)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "is failed" in line]
    assert line.startswith("text is failed: dataset_registry: Ray node apart on ")
    assert "does not see the store" in line
    assert "set MM_STORE to a bucket (s3://...)" in line
    store = tmp_path / "work" / ".mm" / "store"
    assert not (store / "blobs" / "packs").exists(), "nothing was read"
    assert not list((store / "registry").rglob("*.lance")), "nor listed"
    done = mm("backfill", "tiny@v1", "--modality", "text", "--mode", "inline", "--ray-address", apart.address)
    assert done.returncode == 0, "inline, the cluster is not asked"
