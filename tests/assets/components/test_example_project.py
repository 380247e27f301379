"""The platform and a dataset as components of a project with assets of its own, upstream and downstream."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "dagster_project"
# In a process of its own: the settings of a code location are those of its process.
_SCRIPT = """
import json, sys
from pathlib import Path
import dagster as dg
from mm_assets.cells.dataset_reports import report_alias
from mm_assets.operations.promotion import promote
from mm_resources.catalog import Catalog
from studio.definitions import defs as load

defs, instance = load(), dg.DagsterInstance.ephemeral()
repository = defs.get_repository_def()
repository.load_all_definitions()
keys = sorted(key.to_user_string() for key in defs.resolve_all_asset_keys())

def requested(cursor):
    graph = defs.resolve_asset_graph()
    mine = dg.Definitions(assets=[graph.assets_def_for_key(dg.AssetKey("probe"))])
    return dg.evaluate_automation_conditions(mine, instance, cursor=cursor)

before = requested(None)
defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, asset_selection=[dg.AssetKey("notes")])
sensor = repository.get_sensor_def("dataset_birds")
resources = defs.resources
with dg.build_sensor_context(instance=instance, resources={"mm_catalog": resources["mm_catalog"]}) as context:
    tick = sensor(context)
instance.add_dynamic_partitions("dataset_version", ["birds@v1"])
statuses = []
for request in tick.run_requests:
    run = defs.resolve_job_def(request.job_name).execute_in_process(
        instance=instance, partition_key=request.partition_key, tags=request.tags
    )
    statuses.append(run.success)
published = instance.get_latest_materialization_event(dg.AssetKey(["features", "birds", "text"]))
between = requested(before.cursor)
catalog = Catalog.open()
report_alias(instance, catalog, promote(catalog, "birds@v1", "production"))
after = requested(between.cursor)
trained = defs.resolve_implicit_global_asset_job_def().execute_in_process(
    instance=instance, asset_selection=[dg.AssetKey("probe")]
)
(event,) = trained.get_asset_materialization_events()
print(json.dumps({
    "keys": keys,
    "groups": sorted({spec.group_name for spec in defs.resolve_all_asset_specs()}),
    "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
    "succeeded": statuses,
    "published": published.asset_materialization.metadata["mm/published"].value,
    "requested": [before.total_requested, between.total_requested, after.total_requested],
    "rows": len(event.step_materialization_data.materialization.metadata["manifest"].value),
    "accuracy": event.step_materialization_data.materialization.metadata["accuracy"].value,
}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project"))


def environment(project: Path) -> dict[str, str]:
    import os

    return {
        **os.environ,
        "MM_STORE": str(project / "store"),
        "DAGSTER_HOME": str(project),
        "PYTHONPATH": f"{project}:{EXAMPLE.parents[1]}",
    }


def test_from_the_projects_table_to_the_projects_model(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=project,
        env=environment(project) | {"MM_KEY_PREFIX": "ml"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"notes", "probe", "ml/raw_assets", "ml/feature_views", "features/birds/text"} <= set(
        found["keys"]
    )
    assert "features/birds/production" in found["keys"]
    assert "mm_4_serve" in found["groups"]
    assert found["schedules"] == ["nightly"]
    assert (found["succeeded"], found["published"]) == ([True], 8)
    assert found["requested"] == [0, 0, 1], "promotion requests the model, publishing does not"
    assert found["accuracy"] == 1.0


@pytest.mark.slow
def test_dg_scaffolds_and_checks(project: Path) -> None:
    def dg(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dagster_dg_cli.cli", *words],
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            timeout=300,
        )

    listed = dg("list", "components", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {"mm_assets.Dataset", "mm_assets.FeaturePlatform"} <= {
        item["key"] for item in json.loads(listed.stdout)["items"]
    }
    for kind, name in (("mm_assets.Dataset", "films"), ("mm_assets.FeaturePlatform", "second")):
        made = dg("scaffold", "defs", kind, name)
        assert made.returncode == 0, made.stderr
        assert (project / "studio" / "defs" / name / "defs.yaml").read_text().startswith(f"type: {kind}")
    checked = dg("check", "yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # Of several components of one type, this version of dg checks the last alone.
    shutil.rmtree(project / "studio/defs/films")
    spec = project / "studio/defs/birds/defs.yaml"
    spec.write_text(spec.read_text().replace("modality: text", "modallity: text"))
    checked = dg("check", "yaml")
    assert checked.returncode == 1
    assert "modallity" in checked.stdout + checked.stderr
