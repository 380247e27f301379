"""The sensor `sources`: check the sources of watched versions, and propose or register the next version.

The sensor only decides: a check takes as long as a listing, and is a run of its own. Decisions depend only on
the registry, so that a crash between two steps and two concurrent ticks have the same result.

Dagster reads the `context` annotation of ops at run time, so this module does without `from __future__
import annotations`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mm_assets.automation.problem_reports import (
    join_problems,
    problem_line,
    problem_observation,
    problem_state,
)
from mm_assets.automation.refresh import cell_request, refresh
from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.dataset_assets import dataset_key
from mm_assets.cells.dataset_reports import report_checks
from mm_assets.cells.dataset_verdicts import newest_pin
from mm_assets.cells.materialization import check_evaluation
from mm_assets.cells.partitions import dataset_versions, partition_key
from mm_assets.cells.source_drift_check import (
    UNCHANGED,
    describe_drift,
    follow_command,
    source_drifts,
    sources_unchanged,
)
from mm_assets.operations.dagster_home import is_in_progress
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.identity import digest, split_dataset_version
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.model import seconds
from mm_embed_kernels.spec.next_version import next_names
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.ingestion.source_drift import Drift
from mm_resources.registry.registrations import Registration
from mm_resources.registry.registry import Registry, declared_cells
from mm_resources.resources import CatalogResource

# `Registration.by` of the versions that the sensor registers.
WATCH = "watch"
_NEXT = "Restore the file of the version, or correct its sources; the others are watched meanwhile."


class CheckConfig(dg.Config):
    """The version whose sources a run checks."""

    dataset_version: str


# Queued and finished runs of earlier versions have these names.
@dg.op(
    name="look_at",
    pool="network",
    description="Lists the sources of a frozen version again, and records the result as its check.",
)
def compare_sources(context: dg.OpExecutionContext, config: CheckConfig, mm_catalog: CatalogResource) -> None:
    """List the sources of a version now, and record the check of each of its cells."""
    catalog = mm_catalog.open()
    registry = catalog.registry
    spec = registry.spec(*split_dataset_version(config.dataset_version))
    drifts = source_drifts(registry, spec, spec.sources, check=True)
    context.add_output_metadata({"drift": describe_drift(registry, spec, drifts) or UNCHANGED})
    for cell in registry.cells(spec.dataset_version):
        names = {source.name for source in spec.sources_of(cell.modality)}
        check = sources_unchanged(registry, spec, [drift for drift in drifts if drift.source in names])
        # An event of a run: of those without one, Dagster keeps only the first. Its annotation omits checks,
        # its code does not.
        evaluation = check_evaluation(asset_key("dataset_registry"), partition_key(cell), check)
        context.log_event(evaluation)  # type: ignore[arg-type]
        pin = newest_pin(catalog, cell.dataset, cell.modality)
        if pin is not None and pin.version == cell.version:
            report_checks(context.instance, dataset_key(cell.dataset, cell.modality), [check])


@dg.job(
    name="look",
    executor_def=dg.in_process_executor,
    description="One check of the sources of a version, for the sensor `sources`.",
)
def check_sources() -> None:
    """Check the sources of one version."""
    compare_sources()


@dg.sensor(
    name="sources",
    jobs=[check_sources, refresh],
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Checks the sources of each dataset's newest version as its spec says (`watch`), "
        "and proposes or registers the next version."
    ),
)
def sources(context: dg.SensorEvaluationContext, mm_catalog: CatalogResource) -> dg.SensorResult:
    """Request the checks that are due, report drift, register next versions and request their cells."""
    registry, now = mm_catalog.open().registry, datetime.now(UTC)
    requests: list[dg.RunRequest] = []
    events: list[dg.AssetObservation] = []
    versions: list[str] = []
    problems: list[str] = []
    for newest in registry.newest_versions(problems):
        if newest.spec.watch.sources == "off":
            continue
        try:
            newest, observations = _follow_sources(registry, newest)
            unreported = [event for event in observations if not _is_reported(context.instance, event)]
            cells = [
                cell
                for cell in declared_cells(newest.spec)
                if newest.by == WATCH
                and registry.pins.get(cell) is None
                and not is_in_progress(context.instance, cell)
            ]
            due = list(_due_checks(registry, newest, now))
        except Exception as error:  # noqa: BLE001 - whatever a version causes is that version's alone
            problems.append(problem_line(newest.spec.dataset_version, error))
            continue
        events += unreported
        requests += [*(cell_request(cell, newest.spec.digest) for cell in cells), *due]
        versions += [newest.spec.dataset_version] if cells else []
    for problem in problems:
        context.log.error(problem)
    # The cursor is the state of the problems that were reported last.
    if (state := problem_state(problems)) != (context.cursor or ""):
        events.append(problem_observation("sources", problems, _NEXT))
    return dg.SensorResult(
        run_requests=requests,
        asset_events=events,
        cursor=state,
        dynamic_partitions_requests=[dataset_versions.build_add_request(versions)] if versions else [],
        skip_reason=None
        if requests or events
        else join_problems(problems) or "no check is due, and no source has changed",
    )


def _due_checks(registry: Registry, newest: Registration, now: datetime) -> Iterator[dg.RunRequest]:
    """Yield the check of a version if it is due: after `every`, or sooner while its sources are changing.

    The run key is the same in all ticks until the check has ended; a check that failed is requested again
    after `every`.
    """
    spec = newest.spec
    watched = _watched_sources(spec)
    if not any(registry.listings.is_frozen(spec, source) for source in watched):
        return
    drifts = source_drifts(registry, spec, watched)
    last_check = min(drift.looked_at for drift in drifts)
    every, settle = (
        timedelta(seconds=seconds(spec.watch.every)),
        timedelta(seconds=seconds(spec.watch.settle)),
    )
    changing = any(drift.has_changed and not drift.is_settled(settle) for drift in drifts)
    passed = now - datetime.fromisoformat(last_check or newest.at)
    if not last_check or passed >= (min(settle, every) if changing else every):
        yield dg.RunRequest(
            job_name=check_sources.name,
            run_key=f"{spec.dataset_version}|{last_check}|{passed // every}",
            run_config=dg.RunConfig(
                {compare_sources.name: CheckConfig(dataset_version=spec.dataset_version)}
            ),
            tags={"mm/dataset": spec.name, "mm/version": spec.version},
        )


def _watched_sources(spec: DatasetSpec) -> list[SourceSpec]:
    """Return the sources with a listing of their own: sound tracks are listed with their videos."""
    return [source for source in spec.sources if not source.track_of]


def _follow_sources(
    registry: Registry, newest: Registration
) -> tuple[Registration, list[dg.AssetObservation]]:
    """Register the next version where the sources have changed and settled, if the spec says so.

    Returns:
        The version that is the newest then, and what to report on the pages of the version whose sources
        changed.
    """
    spec = newest.spec
    drifts = source_drifts(registry, spec, _watched_sources(spec))
    settle = timedelta(seconds=seconds(spec.watch.settle))
    ready = any(drift.has_changed for drift in drifts) and all(
        drift.is_settled(settle) and not drift.problem for drift in drifts
    )
    if not ready:
        return newest, []
    if spec.watch.sources == "propose":
        return newest, _drift_observations(registry, spec, drifts, f"`{follow_command(registry, spec)}`")
    # By the day of the check, which is the same for all ticks that decide by it.
    day = datetime.fromisoformat(max(drift.looked_at for drift in drifts)).date()
    following = registry.follow(spec, next_names(spec.version, spec.watch.names, day), by=WATCH)
    next_ = f"{following.dataset_version} is registered and its cells are requested"
    observations = _drift_observations(registry, spec, drifts, next_)
    return registry.registration(following.name, following.version), observations


def _drift_observations(
    registry: Registry, spec: DatasetSpec, drifts: list[Drift], next_: str
) -> list[dg.AssetObservation]:
    """Return an observation for the page of each cell: what changed, and the next step."""
    drift = describe_drift(registry, spec, drifts)
    metadata: dict[str, Any] = {
        "drift": escape_terminal(drift),
        "next": dg.MetadataValue.md(next_),
        "sources": dg.MetadataValue.json({drift.source: vars(drift) for drift in drifts if str(drift)}),
        "state": digest("drift", *(drift.state for drift in drifts))[:16],
    }
    return [
        dg.AssetObservation(
            asset_key("dataset_registry"),
            partition=partition_key(cell),
            metadata=metadata,
            description=escape_terminal(drift),
        )
        for cell in registry.cells(spec.dataset_version)
    ]


def _is_reported(instance: dg.DagsterInstance, event: dg.AssetObservation) -> bool:
    """Return whether the last observation of a cell's sources was of the same state."""
    chosen = dg.AssetRecordsFilter(asset_key=event.asset_key, asset_partitions=[str(event.partition)])
    records = instance.fetch_observations(chosen, limit=1).records
    last = records[0].asset_observation if records else None
    return (
        last is not None
        and "state" in last.metadata
        and last.metadata["state"].value == event.metadata["state"].value
    )
