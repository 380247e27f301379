"""The Dagster definition of a declared asset: its checks, resources, partitions and the run of its body."""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.automation_condition import materialize_when_upstream_changes
from mm_assets.cells.cell_asset import CellAsset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_assets.cells.dataset_reports import report_pin, report_stage
from mm_assets.cells.entry import enter
from mm_assets.cells.lineage_events import send_lineage
from mm_assets.cells.materialization import column_schema
from mm_assets.cells.partitions import DATASET_VERSION, MODALITY, cells
from mm_assets.cells.publication import publish, replay
from mm_assets.cells.run_context import RunContext
from mm_assets.cells.run_failures import one_line_failures
from mm_assets.cells.run_tags import STAGE_TAG
from mm_assets.cells.stage_trace import trace_stage
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.modalities import modalities
from mm_resources.cell import Cell
from mm_resources.storage.patience import read_patiently
from mm_resources.work_settings import embedder_key

OWNERS = ["team:data-platform"]
RESOURCES = {"mm_catalog", "mm_cache", "mm_sandbox", "mm_ray"}


def define_asset(declared: CellAsset, pools: Mapping[str, str] | None = None) -> dg.AssetsDefinition:
    """Return the software-defined asset of a declaration.

    Args:
        pools: pool of the declaration -> the deployment's name of it; "" for none.
    """
    contract: Contract = declared.shown_contract or getattr(contracts, declared.name.upper())
    about = inspect.getdoc(declared.body) or declared.name
    models = {embedder_key(modality) for modality in modalities()} if declared.requires_models else set()

    @dg.asset(
        key=asset_key(declared.name),
        description=about,
        group_name=declared.group,
        deps=[asset_key(dep) for dep in declared.deps],
        kinds=set(declared.kinds),
        owners=OWNERS,
        tags=dict([STAGE_TAG]),
        code_version=declared.code_version,
        # The first asset is started by the sensor `specs`, by `mm` or by hand; the others follow.
        automation_condition=materialize_when_upstream_changes() if declared.deps else None,
        pool=(pools or {}).get(declared.pool, declared.pool) or None,
        partitions_def=cells,
        required_resource_keys=RESOURCES | models,
        metadata={"dagster/column_schema": column_schema(contract)},
        check_specs=_check_specs(declared.name, declared.checks),
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with one_line_failures():
            run = CellRun(_run_context(context), declared.name, declared.code_version, declared.deps)
            with trace_stage(run) as traced, send_lineage(run, about) as sent:
                run.begin()
                entry = read_patiently(lambda: enter(run, declared))
                if entry.stored is not None:
                    result = replay(run, entry, entry.stored, declared.live_checks)
                else:
                    result = publish(run, entry, declared.body(run), declared.live_checks)
                report_stage(context.instance, run.catalog, run.cell, declared.name, result)
                traced(result)
                sent(result)
                return result

    return materialize


def _run_context(context: dg.AssetExecutionContext) -> RunContext:
    keys: Any = context.partition_key
    dataset, version = split_dataset_version(keys.keys_by_dimension[DATASET_VERSION])
    cell = Cell(dataset, version, keys.keys_by_dimension[MODALITY])

    def find_end() -> str:
        run = context.instance.get_run_by_id(context.run.run_id)
        return run.status.value.lower() if run is not None and run.is_finished else ""

    return RunContext(
        cell=cell,
        run_id=context.run.run_id,
        tags=context.run.tags,
        catalog=(catalog := context.resources.mm_catalog.open()),
        limits=context.resources.mm_sandbox.limits(),
        open_models=lambda: getattr(context.resources, embedder_key(cell.modality)).settings,
        open_runner=lambda: context.resources.mm_cache.open(),
        find_end=find_end,
        checks=frozenset(key.name for key in context.selected_asset_check_keys),
        log=context.log,
        report_pin=lambda pin: report_pin(context.instance, catalog, pin),
    )


def _check_specs(asset: str, checks: Iterable[tuple[str, bool]]) -> list[dg.AssetCheckSpec]:
    """Declare the checks of an asset, (name, blocking) each, for every cell."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview feature of Dagster; tests prove that dynamic multi-partitions work.
        warnings.filterwarnings("ignore", message=".*partitions_def on an AssetCheckSpec.*")
        return [
            dg.AssetCheckSpec(
                check,
                asset=asset_key(asset),
                blocking=blocking,
                partitions_def=cells,
                description=DESCRIPTIONS[check],
            )
            for check, blocking in checks
        ]
