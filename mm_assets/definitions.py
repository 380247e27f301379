"""The Dagster code location: twelve assets, their checks, the job that runs them, and the resources."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mm_assets.alerts.sensors import alert_sensors
from mm_assets.alerts.settings import AlertSettings, load_alerts
from mm_assets.automation.audit_job import audit_job, audit_schedule
from mm_assets.automation.metrics_job import metrics_job, metrics_schedule
from mm_assets.automation.refresh import conditions, refresh, refresh_schedule
from mm_assets.automation.source_sensor import check_sources, sources
from mm_assets.automation.spec_sensor import specs
from mm_assets.automation.upkeep_job import upkeep_job, upkeep_schedule
from mm_assets.cells.asset_definition import define_asset
from mm_assets.graph import STAGE_ASSETS
from mm_embed_kernels.modalities import modalities
from mm_resources import resources as res
from mm_resources.settings import Settings
from mm_resources.storage.process import configure_process
from mm_resources.work_settings import embedder_key

# This module is the code location: it is imported by code servers, workers of runs and other entry points.
configure_process()
# Raised by Dagster's own copying of a sensor with several jobs, after this module was imported.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer `SensorDefinition")


SCHEDULES: Mapping[str, Callable[..., dg.ScheduleDefinition]] = {
    "nightly": refresh_schedule,
    "weekly_upkeep": upkeep_schedule,
    "weekly_audit": audit_schedule,
    "metrics_for_prometheus": metrics_schedule,
}


def default_resources(
    store: str = "", mode: str = "auto", address: str = "", cluster: Any = None
) -> dict[str, object]:
    """Return the resources of a deployment; tests and clusters pass other values.

    Args:
        cluster: a resource of dagster-ray (`LocalRay`, `KubeRayCluster`, `KubeRayInteractiveJob`) that makes
            the Ray cluster of a run.
    """
    root = res.StoreResource(root=store)
    ray = res.RayResource(address=address)
    # In one place alone: Dagster sets a nested resource up for each that holds it, each time with a cluster.
    own = ray if cluster is None else res.RayClusterResource(cluster=cluster)
    return {
        "mm_catalog": res.CatalogResource(store=root),
        "mm_cache": res.ComputeCacheResource(store=root, ray=own, mode=mode),
        "mm_sandbox": res.SandboxResource(),
        "mm_ray": ray,
        **{embedder_key(name): res.default_embedder(modality) for name, modality in modalities().items()},
    }


def platform(
    pools: Mapping[str, str] | None = None,
    alerts: AlertSettings | None = None,
    crons: Mapping[str, str] | None = None,
    **settings: Any,
) -> dg.Definitions:
    """Return the platform as a part of any project: only its jobs have an executor, resources have ``mm_``.

    Args:
        pools: pool of the platform (``network``, ``ray``, ``gpu``) -> the deployment's name of it.
        alerts: where alerts go; by default as the file says that ``MM_ALERTS`` names.
        crons: schedule -> its cron string; by default its own.
        settings: those of `default_resources`.
    """
    jobs = [check_sources, upkeep_job, audit_job, metrics_job]
    return dg.Definitions(
        assets=[define_asset(declared, pools) for declared in STAGE_ASSETS],
        jobs=[refresh, *jobs],
        sensors=[
            specs,
            sources,
            conditions,
            *alert_sensors(alerts or _configured_alerts(), [refresh, *jobs]),
        ],
        schedules=[make(**_time(crons, name)) for name, make in SCHEDULES.items()],
        resources=default_resources(**settings),
    )


def _time(crons: Mapping[str, str] | None, schedule: str) -> dict[str, str]:
    return {"cron": crons[schedule]} if crons and schedule in crons else {}


def _configured_alerts() -> AlertSettings | None:
    file = Settings.from_environment().alerts
    return load_alerts(Path(file)) if file else None


def build(**settings: Any) -> dg.Definitions:
    """Return the code location, whose runs from the UI stay in one process, too."""
    return dg.Definitions.merge(platform(**settings), dg.Definitions(executor=dg.in_process_executor))


defs = build()
