"""The asset graph is as recorded: a change must be intended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.definitions import defs
from mm_embed_kernels.contracts.pipeline import STAGES

SNAPSHOT = Path(__file__).parent / "graph.json"


def graph() -> dict[str, dict[str, object]]:
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    checks: dict[str, list[str]] = {}
    for asset in defs.assets or []:
        assert isinstance(asset, dg.AssetsDefinition)
        for check in asset.check_specs:
            checks.setdefault(check.asset_key.to_user_string(), []).append(
                check.name + (" (blocking)" if check.blocking else "")
            )
    return {
        key: {
            "group": spec.group_name,
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "checks": sorted(checks.get(key, [])),
            "code_version": spec.code_version,
            "kinds": sorted(spec.kinds),
        }
        for key, spec in sorted(specs.items(), key=lambda item: STAGES.index(item[0]))
    }


def test_the_code_location_loads_as_a_daemon_loads_it() -> None:
    """Load all definitions: clashing names of ops and jobs are reported then, and not by an import."""
    defs.get_repository_def().load_all_definitions()


def test_graph_is_as_recorded() -> None:
    """After an intended change: python tests/assets/test_graph.py"""
    assert graph() == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("name", STAGES)
def test_every_asset_explains_itself(name: str) -> None:
    spec = next(spec for spec in defs.resolve_all_asset_specs() if spec.key.to_user_string() == name)
    assert spec.description
    assert len(spec.description) > 60
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    columns = spec.metadata["dagster/column_schema"].columns
    assert columns
    assert all(column.description for column in columns)
    assert isinstance(spec.partitions_def, dg.MultiPartitionsDefinition)


def test_refresh_runs_all_twelve_in_process() -> None:
    job = defs.resolve_job_def("refresh")
    assert {node.name for node in job.nodes} == set(STAGES)
    assert job.executor_def.name == "in_process"


def test_definitions_load_without_heavy_libraries() -> None:
    code = "import sys, mm_assets.definitions; print([m for m in ('torch','ray','transformers','timm','lance','lancedb','pandera','polars') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(graph(), indent=1) + "\n")
