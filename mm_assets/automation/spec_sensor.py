"""The sensor `specs`: register the specs of the folder MM_DATASETS and request their cells."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg

from mm_assets.automation.refresh import cell_request
from mm_assets.cells.partitions import dataset_versions
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.objects.opener import file_tag
from mm_resources.resources import CatalogResource
from mm_resources.settings import Settings

_SPEC_SUFFIXES = (".yaml", ".yml")


@dg.sensor(
    name="specs",
    job_name="refresh",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers new and changed specs of the folder MM_DATASETS, and requests their cells.",
)
def specs(context: dg.SensorEvaluationContext, catalog: CatalogResource) -> dg.SensorResult:
    """Register the files that changed since the last tick.

    The cursor contains the state of each file at the last tick, so that a restart repeats nothing.
    """
    before: dict[str, str] = json.loads(context.cursor or "{}")
    now = _file_states(Settings.from_environment().datasets)
    registry, requests, versions, problems = catalog.open().registry, [], [], []
    for path, state in now.items():
        if before.get(path) == state:
            continue
        try:
            spec = load_spec(Path(path))
            registry.register(spec)
        except UserError as error:
            problems.append(str(error))
            context.log.error(str(error))
            continue
        versions.append(spec.dataset_version)
        requests += [
            cell_request(cell, spec.digest)
            for cell in registry.cells(spec.dataset_version)
            if registry.pins.get(cell) is None
        ]
    return dg.SensorResult(
        run_requests=requests,
        cursor=json.dumps(now),
        dynamic_partitions_requests=[dataset_versions.build_add_request(versions)] if versions else [],
        skip_reason=None if requests else "; ".join(problems) or "no spec is new or changed",
    )


def _file_states(folder: Path) -> dict[str, str]:
    """Return the size and modification time of each spec file, as one string."""
    files = (
        sorted(path for path in folder.glob("*") if path.suffix in _SPEC_SUFFIXES) if folder.is_dir() else []
    )
    return {str(path): file_tag(path.stat()) for path in files}
