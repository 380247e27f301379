"""A cluster that a resource of dagster-ray makes: kernels run on it, and it is left as its life-cycle says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_ray import Lifecycle, LocalRay

from mm_resources.resources import RayClusterResource
from tests.processes import ROOT


@pytest.mark.usefixtures("ray_cluster")
def test_work_goes_to_the_cluster_of_the_resource() -> None:
    """The resource finds the cluster of these tests, and does not end it."""
    import ray

    nodes: dict[str, Any] = {}

    @dg.asset
    def worked(mm_ray: RayClusterResource) -> None:
        session = mm_ray.session
        session.start()
        nodes["worked"] = ray.get(ray.remote(lambda: ray.get_runtime_context().get_node_id()).remote())
        nodes["started"] = session.started

    cluster = LocalRay(lifecycle=Lifecycle(connect=False))
    resources = {"mm_ray": RayClusterResource(cluster=cluster)}
    assert dg.materialize([worked], resources=resources).success
    assert nodes == {"worked": ray.nodes()[0]["NodeID"], "started": False}
    assert ray.is_initialized()


# In a process of its own, whose Ray is that of the resource, made once in the run.
_SCRIPT = """
import sys
from pathlib import Path
import dagster as dg
from dagster_ray import LocalRay
from mm_assets.definitions import build
from mm_assets.operations.backfill import backfill_cell
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.catalog import Catalog
import ray

folder = Path(sys.argv[1])
catalog = Catalog.open(folder / "store")
catalog.registry.register(load_spec(folder / "v1.yaml"))
options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20, "log_to_driver": False}
definitions = build(store=str(folder / "store"), mode="ray", cluster=LocalRay(ray_init_options=options))
(cell,) = catalog.registry.cells("notes@v1")
result = backfill_cell(dg.DagsterInstance.ephemeral(), definitions, cell, catalog)
rows = catalog.ledger.read().read_all().to_pylist()
print(result.status, sorted({row["mode"] for row in rows if row["mode"]}), ray.is_initialized())
"""


@pytest.mark.slow
def test_a_cell_is_published_on_the_cluster_of_the_resource(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The river runs slowly into the sea.")
    spec = "{name: notes, version: v1, embedders: {text: [wordllama]}, sources: [{name: notes, modality: text, uri: notes.txt}]}"
    (tmp_path / "v1.yaml").write_text(spec)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.splitlines()[-1] == "published ['ray'] False"
