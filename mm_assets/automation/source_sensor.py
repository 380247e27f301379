"""Sources that are watched: looked at by themselves, and followed by a new version, proposed or registered.

The sensor only decides; a look, which takes as long as a listing does, is a run of its own. All that a decision rests
on lies in the registry, so that a crash between two steps, or two ticks at once, come to the same end.

Dagster reads annotations of sensors and ops at run time, so this module does without `from __future__ import annotations`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mm_assets.automation.refresh import refresh, request
from mm_assets.cells.materialization import check_evaluation
from mm_assets.cells.partitions import dataset_versions, partition_key
from mm_assets.cells.source_drift_check import (
    follow_command,
    known_drifts,
    moved_on,
    sources_of,
    sources_unchanged,
)
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import digest, split_dataset_version
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.model import seconds
from mm_embed_kernels.spec.next_version import next_names
from mm_resources.ingestion.source_drift import Drift
from mm_resources.registry.registry import Registration, Registry
from mm_resources.resources import CatalogResource

# Who registered a version, where the sensor did.
WATCH = "watch"
_REGISTRY = dg.AssetKey("dataset_registry")


class Watched(dg.Config):
    """Which version a look is at."""

    dataset_version: str


@dg.op(
    pool="network",
    description="Lists the sources of a frozen version anew and says, as its check, whether they have moved on.",
)
def look_at(context: dg.OpExecutionContext, config: Watched, catalog: CatalogResource) -> None:
    registry = catalog.open().registry
    spec = registry.spec(*split_dataset_version(config.dataset_version))
    found = known_drifts(registry, spec, spec.sources, look=True)
    context.add_output_metadata(
        {"drift": moved_on(registry, spec, found) or "the sources are as they were listed"}
    )
    for cell in registry.cells(spec.dataset_version):
        names = {source.name for source in sources_of(spec, cell.modality)}
        check = sources_unchanged(registry, spec, [drift for drift in found if drift.source in names])
        # Of a run, since of those that belong to none Dagster keeps the first alone. Its annotation forgets checks, its code does not.
        context.log_event(check_evaluation(_REGISTRY, partition_key(cell), check))  # type: ignore[arg-type]


@dg.job(
    name="look",
    executor_def=dg.in_process_executor,
    description="One look at the sources of a version, for the sensor `sources`.",
)
def look_job() -> None:
    look_at()


@dg.sensor(
    name="sources",
    jobs=[look_job, refresh],
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks at the sources of each dataset's newest version as its spec says (`watch`), and proposes or registers the next.",
)
def sources(context: dg.SensorEvaluationContext, catalog: CatalogResource) -> dg.SensorResult:
    registry, now = catalog.open().registry, datetime.now(UTC)
    requests: list[dg.RunRequest] = []
    events: list[dg.AssetObservation] = []
    versions: list[str] = []
    problems: list[str] = []
    for newest in registry.newest():
        if newest.spec.watch.sources == "off":
            continue
        try:
            newest, told = _followed(registry, newest)
        except (UserError, OSError) as error:
            problems.append(f"{newest.spec.dataset_version}: {' '.join(str(error).split())}")
            continue
        events += [event for event in told if not _is_told(context.instance, event)]
        cells = [
            cell
            for cell in registry.cells(newest.spec.dataset_version)
            if newest.by == WATCH and registry.pins.get(cell) is None
        ]
        requests += [request(cell, newest.spec.digest) for cell in cells] + list(
            _looks(registry, newest, now)
        )
        versions += [newest.spec.dataset_version] if cells else []
    for problem in problems:
        context.log.error(problem)
    return dg.SensorResult(
        run_requests=requests,
        asset_events=events,
        dynamic_partitions_requests=[dataset_versions.build_add_request(versions)] if versions else [],
        skip_reason=None
        if requests or events
        else "; ".join(problems) or "no look is due, and no source has moved on",
    )


def _looks(registry: Registry, newest: Registration, now: datetime) -> Iterator[dg.RunRequest]:
    """The look that is due, if one is: after `every`, or sooner at sources that have moved on and are not seen to rest yet.

    Its key is the same in all ticks until it has come to an end; one that failed is asked for again after `every`.
    """
    spec = newest.spec
    watched = [source for source in spec.sources if not source.track_of]
    if not any(registry.listings.is_frozen(spec, source) for source in watched):
        return
    drifts = known_drifts(registry, spec, watched)
    looked_at = min(drift.looked_at for drift in drifts)
    every, settle = (
        timedelta(seconds=seconds(spec.watch.every)),
        timedelta(seconds=seconds(spec.watch.settle)),
    )
    restless = any(drift.moved_on and not drift.settled(settle) for drift in drifts)
    passed = now - datetime.fromisoformat(looked_at or newest.at)
    if not looked_at or passed >= (min(settle, every) if restless else every):
        yield dg.RunRequest(
            job_name="look",
            run_key=f"{spec.dataset_version}|{looked_at}|{passed // every}",
            run_config=dg.RunConfig({"look_at": Watched(dataset_version=spec.dataset_version)}),
            tags={"mm/dataset": spec.name, "mm/version": spec.version},
        )


def _followed(registry: Registry, newest: Registration) -> tuple[Registration, list[dg.AssetObservation]]:
    """The version to go on with, and what is to be told of the one whose sources have moved on and rest again."""
    spec = newest.spec
    drifts = known_drifts(registry, spec, [source for source in spec.sources if not source.track_of])
    settle = timedelta(seconds=seconds(spec.watch.settle))
    ready = any(drift.moved_on for drift in drifts) and all(
        drift.settled(settle) and not drift.problem for drift in drifts
    )
    if not ready:
        return newest, []
    if spec.watch.sources == "propose":
        return newest, list(_told(registry, spec, drifts, f"`{follow_command(registry, spec)}`"))
    # By the day of the look, which is the same for all who decide by it.
    day = datetime.fromisoformat(max(drift.looked_at for drift in drifts)).date()
    following = registry.follow(spec, next_names(spec.version, spec.watch.names, day), by=WATCH)
    told = list(
        _told(
            registry, spec, drifts, f"{following.dataset_version} is registered and its cells are requested"
        )
    )
    return registry.registration(following.name, following.version), told


def _told(
    registry: Registry, spec: DatasetSpec, drifts: list[Drift], next_: str
) -> Iterator[dg.AssetObservation]:
    """What the page of each cell shows of sources that have moved on."""
    metadata: dict[str, Any] = {
        "drift": moved_on(registry, spec, drifts),
        "next": dg.MetadataValue.md(next_),
        "sources": dg.MetadataValue.json({drift.source: vars(drift) for drift in drifts if str(drift)}),
        "state": digest("drift", *(drift.state for drift in drifts))[:16],
    }
    for cell in registry.cells(spec.dataset_version):
        yield dg.AssetObservation(
            _REGISTRY, partition=partition_key(cell), metadata=metadata, description=metadata["drift"]
        )


def _is_told(instance: dg.DagsterInstance, event: dg.AssetObservation) -> bool:
    """Whether the last word on a cell's sources was this one."""
    chosen = dg.AssetRecordsFilter(asset_key=event.asset_key, asset_partitions=[str(event.partition)])
    last = instance.fetch_observations(chosen, limit=1).records
    said = last[0].asset_observation if last else None
    return (
        said is not None
        and "state" in said.metadata
        and said.metadata["state"].value == event.metadata["state"].value
    )
