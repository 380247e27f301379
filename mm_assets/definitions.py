"""The Dagster code location: twelve assets, their checks, the job that runs them, and the resources."""

from __future__ import annotations

import warnings

import dagster as dg

from mm_assets.automation.audit_job import audit_job, weekly_audit
from mm_assets.automation.refresh import conditions, nightly, refresh
from mm_assets.automation.source_sensor import check_sources, sources
from mm_assets.automation.spec_sensor import specs
from mm_assets.automation.upkeep_job import upkeep_job, weekly_upkeep
from mm_assets.cells.asset_definition import define_asset
from mm_assets.graph import STAGE_ASSETS
from mm_embed_kernels.modalities import modalities
from mm_resources import resources as res
from mm_resources.storage.process import configure_process
from mm_resources.work_settings import embedder_key

# This module is the code location: it is imported by code servers, workers of runs and other entry points.
configure_process()
# Raised by Dagster's own copying of a sensor with several jobs, after this module was imported.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer `SensorDefinition")

ASSETS = [define_asset(declared) for declared in STAGE_ASSETS]


def default_resources(store: str = "", mode: str = "auto", address: str = "") -> dict[str, object]:
    """Return the resources of a deployment; tests and clusters pass other values."""
    root = res.StoreResource(root=store)
    ray = res.RayResource(address=address)
    return {
        "mm_catalog": res.CatalogResource(store=root),
        "mm_cache": res.ComputeCacheResource(store=root, ray=ray, mode=mode),
        "mm_sandbox": res.SandboxResource(),
        "mm_ray": ray,
        **{embedder_key(name): res.default_embedder(modality) for name, modality in modalities().items()},
    }


def platform(**settings: str) -> dg.Definitions:
    """Return the platform as a part of any project: only its jobs have an executor, resources have ``mm_``.

    Args:
        settings: those of `default_resources`.
    """
    return dg.Definitions(
        assets=ASSETS,
        jobs=[refresh, check_sources, upkeep_job, audit_job],
        sensors=[specs, sources, conditions],
        schedules=[nightly, weekly_upkeep, weekly_audit],
        resources=default_resources(**settings),
    )


def build(**settings: str) -> dg.Definitions:
    """Return the code location, whose runs from the UI stay in one process, too."""
    return dg.Definitions.merge(platform(**settings), dg.Definitions(executor=dg.in_process_executor))


defs = build()
