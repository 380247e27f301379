"""What happens by itself: specs are registered, new versions flow to the publish, published versions are refreshed.

Dagster reads annotations of sensors at run time, so this module does without `from __future__ import annotations`.
"""

import json
from pathlib import Path

import dagster as dg

from mm_assets.cell_run import ORDER
from mm_assets.partitions import dataset_versions, partition_key
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec import load_spec
from mm_resources.registry import Registry
from mm_resources.resources import RegistryResource
from mm_resources.settings import Settings
from mm_resources.store import Cell
from mm_resources.upkeep import upkeep

_SPEC_ENDINGS = (".yaml", ".yml")
_Condition = dg.AutomationCondition


def flows_on() -> dg.AutomationCondition:
    """Materialize when upstream holds something new, has passed its gates and is at rest.

    Stricter than ``eager()``: a run that left upstream's data version as it was starts nothing, and a failed gate stops
    the flow until it is mended.
    """
    upstream_is_new = _Condition.any_deps_match(_Condition.data_version_changed() | _Condition.will_be_requested())
    return (
        (_Condition.missing().newly_true() | upstream_is_new).since_last_handled()
        & ~_Condition.any_deps_missing()
        & ~_Condition.any_deps_in_progress()
        & ~_Condition.in_progress()
        & _Condition.all_deps_blocking_checks_passed()
    )


conditions = dg.AutomationConditionSensorDefinition(
    "conditions",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Brings what was materialized by hand or by a sensor on to the publish; stops at a failed gate.",
)


refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.assets(*ORDER),
    description="All twelve components of one cell, in one process, with one Ray session at most.",
    executor_def=dg.in_process_executor,
)


@dg.sensor(
    name="specs",
    job_name="refresh",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers new and changed specs of the folder MM_DATASETS and requests the cells that they declare.",
)
def specs(context: dg.SensorEvaluationContext, registry: RegistryResource) -> dg.SensorResult:
    """The cursor holds what each file was when it was last looked at, so that a restart repeats nothing."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    now = _spec_files(Settings.from_environment().datasets)
    known, requests, versions, problems = registry.open(), [], [], []
    for path, state in now.items():
        if seen.get(path) == state:
            continue
        try:
            spec = load_spec(Path(path))
            known.register(spec)
        except UserError as error:
            problems.append(str(error))
            context.log.error(str(error))
            continue
        versions.append(spec.dataset_version)
        requests += [request(cell, spec.digest) for cell in known.cells(spec.dataset_version) if known.pin(cell) is None]
    return dg.SensorResult(
        run_requests=requests,
        cursor=json.dumps(now),
        dynamic_partitions_requests=[dataset_versions.build_add_request(versions)] if versions else [],
        skip_reason=None if requests else "; ".join(problems) or "no spec is new or changed",
    )


def _spec_files(folder: Path) -> dict[str, str]:
    """Spec files and what tells that one has changed."""
    found = sorted(path for path in folder.glob("*") if path.suffix in _SPEC_ENDINGS) if folder.is_dir() else []
    return {str(path): f"{(info := path.stat()).st_size}-{info.st_mtime_ns}" for path in found}


def request(cell: Cell, key: str) -> dg.RunRequest:
    """A run of all of a cell's assets, once for each key."""
    return dg.RunRequest(job_name="refresh", run_key=f"{cell.partition_key}|{key}", partition_key=partition_key(cell), tags=cell_tags(cell))


def cell_tags(cell: Cell) -> dict[str, str]:
    """Tags by which a person finds the runs of a cell."""
    profile = Settings.from_environment().profile
    return {"mm/dataset": cell.dataset, "mm/version": cell.version, "mm/modality": cell.modality, "mm/profile": profile}


@dg.schedule(
    name="nightly",
    job_name="refresh",
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Goes over every published cell: tries failures that may pass again, heals blobs, reports sources that have moved on.",
)
def nightly(context: dg.ScheduleEvaluationContext, registry: RegistryResource) -> list[dg.RunRequest] | dg.SkipReason:
    known: Registry = registry.open()
    cells = [cell for name in known.datasets() for cell in known.cells(name) if known.pin(cell) is not None]
    when = context.scheduled_execution_time.isoformat()
    return [request(cell, when) for cell in cells] or dg.SkipReason("nothing is published yet")


@dg.op(description="Joins small files and removes what is superseded; nothing that is published changes.")
def tidy(context: dg.OpExecutionContext, registry: RegistryResource) -> None:
    parts = upkeep(registry.open().store)
    figures = {part.part: dg.MetadataValue.json(vars(part)) for part in parts}
    context.add_output_metadata(figures)


@dg.job(name="upkeep", executor_def=dg.in_process_executor, description="mm upkeep, over the whole store.")
def upkeep_job() -> None:
    tidy()


weekly_upkeep = dg.ScheduleDefinition(
    name="weekly_upkeep",
    job=upkeep_job,
    cron_schedule="0 5 * * 0",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Keeps the store small: joins small files, removes what has been superseded for a week.",
)
