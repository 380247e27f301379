"""Nodes that are fit for a driver's work, and such as are not: real Ray nodes, in mount namespaces of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from mm_embed_kernels.embedders import create
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.environment import differences, environment, model_of
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.runner import KernelRunner
from mm_resources.storage.store import Store
from tests.cluster import Cluster, can_hide_folders, cluster
from tests.processes import ROOT
from tests.resources.ray_numbers import Numbers

needs_namespaces = pytest.mark.skipif(
    not can_hide_folders(), reason="needs a mount namespace of its own (root)"
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster() as started:
        yield started


# A process of its own: Ray ends one that was connected a while after the cluster is gone, and has one cluster for each process.
_DRIVER = """
import sys
import pyarrow as pa
from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources.compute.cache import (ComputeCache)
from mm_resources.compute.runner import (KernelRunner)
from mm_resources.compute.ray_session import RaySession
from mm_resources.storage.store import Store
from tests.resources.ray_numbers import Numbers

address, root, *models = sys.argv[1:]
session, store = RaySession(address), Store(root)
try:
    session.require(store, [create(name) for name in models])
    report = KernelRunner(ComputeCache(store), session, mode="ray").run(Numbers(), pa.table({"key": ["1", "2", "3"]}))
    print(report.mode, report.computed, report.failed)
except UserError as error:
    print(error)
session.close()
"""


def told(nodes: Cluster, store: Path, *before: str, models: Sequence[str] = (), **environment: str) -> str:
    """What a driver says that works in another folder: Ray would lend its nodes the code that lies in this one."""
    (folder := store.parent).mkdir(exist_ok=True)
    done = subprocess.run(
        [*before, sys.executable, "-c", _DRIVER, nodes.address, str(store), *models],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_namespaces
@pytest.mark.slow
def test_a_store_that_a_node_does_not_see(nodes: Cluster, tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    with nodes.worker("elsewhere", hidden=[mine]):
        refused = told(nodes, mine / "store")
        assert refused.startswith("Ray node elsewhere on ")
        assert (
            f"does not see the store {mine}/store, a folder of this machine; set MM_STORE to a bucket (s3://...), or"
            in refused
        )
        assert list((mine / "store").rglob("reach-*")) == [], "nothing is left of the question"
        # A folder that all nodes see is as good as a bucket, and the work goes there.
        assert told(nodes, tmp_path / "shared" / "store", models=["minilm"]) == "ray 3 0"


@pytest.mark.slow
def test_a_node_with_another_environment(nodes: Cluster, tmp_path: Path) -> None:
    """The first on the node's path are another pillow, as it says of itself, and code that somebody has changed."""
    (other := tmp_path / "other" / "pillow-0.9.dist-info").mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 0.9\n")
    for package in ("mm_embed_kernels", "mm_resources"):
        shutil.copytree(ROOT / package, tmp_path / "other" / package)
    with (tmp_path / "other" / "mm_resources" / "settings.py").open("a") as code:
        code.write("# changed\n")
    with nodes.worker("outdated", environment={"PYTHONPATH": str(tmp_path / "other")}):
        refused = told(nodes, tmp_path / "store")
    assert refused.startswith("Ray node outdated on ")
    assert "has another environment: the code of mm-features is " in refused
    assert refused.endswith(
        f" here, pillow is 0.9 there and {environment()['pillow']} here; install the packages of constraints.txt on all nodes"
    )


@pytest.mark.slow
def test_a_node_without_this_code(nodes: Cluster, tmp_path: Path) -> None:
    room = tmp_path / "stub" / "mm_resources" / "compute"
    room.mkdir(parents=True)
    for package in (room.parent, room):
        (package / "__init__.py").touch()
    # An import of its own, since an editable install would find the module that a stub lacks.
    (room / "ray_nodes.py").write_text("import a_package_that_the_node_lacks\n")
    with nodes.worker("bare", environment={"PYTHONPATH": str(tmp_path / "stub")}):
        refused = told(nodes, tmp_path / "store")
    assert refused.startswith("Ray node bare on ")
    assert (
        "cannot run this code: ModuleNotFoundError: No module named 'a_package_that_the_node_lacks'"
        in refused
    )
    assert "\n" not in refused


@needs_namespaces
@pytest.mark.slow
def test_a_driver_beside_no_node(nodes: Cluster, tmp_path: Path) -> None:
    """In a process namespace of its own it sees none, as in a container of its own."""
    refused = told(
        nodes,
        tmp_path / "store",
        "unshare",
        "-p",
        "-f",
        "--mount-proc",
        RAY_gcs_server_request_timeout_seconds="3",
    )
    assert refused.startswith(f"no node of the Ray cluster at {nodes.address} runs on this machine")
    assert refused.endswith(f"ray start --address={nodes.address} --num-cpus=0")


def test_differences_name_both_sides() -> None:
    here = environment([model_of(create("minilm"))])
    assert differences(here, here) == []
    assert len(here["weights of minilm"]) == 12
    nowhere = environment([("embedder", "st:/nowhere", "cpu", "float32")])["weights of st:/nowhere"]
    assert nowhere == "unavailable (embedder st:/nowhere: there is no folder /nowhere)"
    assert {"Python", "machine", "torch", "tokenizers", "chardet", "ctranslate2"} <= set(here)
    there = {**here, "Python": "3.99", "plug-in birds": "2"}
    assert differences(here, there) == [
        f"Python is 3.99 there and {here['Python']} here",
        "plug-in birds is 2 there and absent here",
    ]


def test_files_of_this_machine_are_read_by_this_machine(tmp_path: Path) -> None:
    class Here(Numbers):
        driver_only = True

    compute = KernelRunner(ComputeCache(Store(str(tmp_path))), RaySession("nobody.invalid:6379"), mode="ray")
    assert compute.run(Here(), pa.table({"key": ["1"]})).mode == "inline"
