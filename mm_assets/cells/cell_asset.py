"""The decorator that turns an asset body into a software-defined asset of a cell."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.automation_condition import materialize_when_upstream_changes
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.entry import enter
from mm_assets.cells.materialization import column_schema
from mm_assets.cells.partitions import cells
from mm_assets.cells.publication import publish, replay
from mm_assets.cells.run_failures import one_line_failures
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.modalities import modalities
from mm_resources.resources import embedder_key
from mm_resources.storage.patience import read_patiently

Body = Callable[[CellRun], StageOutput]
OWNERS = ["team:data-platform"]
RESOURCES = {"mm_catalog", "mm_cache", "mm_sandbox", "mm_ray"}


def _no_inputs(_run: CellRun) -> dict[str, Any]:
    return {}


def _no_preparation(_run: CellRun) -> None:
    pass


def _no_checks(_run: CellRun) -> list[Check]:
    return []


def cell_asset(  # noqa: PLR0913 - a declaration by keywords
    *,
    group: str,
    deps: Iterable[str] = (),
    kinds: Iterable[str] = (),
    code_version: str = "1",
    checks: Iterable[tuple[str, bool]] = (),
    requires_models: bool = False,
    prepare: Callable[[CellRun], None] = _no_preparation,
    extra_inputs: Callable[[CellRun], dict[str, Any]] = _no_inputs,
    is_still_valid: Callable[[CellRun], bool] = lambda _run: True,
    live_checks: Callable[[CellRun], list[Check]] = _no_checks,
    shown_contract: Contract | None = None,
    pool: str = "",
) -> Callable[[Body], dg.AssetsDefinition]:
    """Declare one of the twelve components.

    Args:
        group: Dagster group; its number gives its place in the graph, from left to right.
        deps: upstream assets.
        checks: (name, blocking) of the checks that the body reports.
        requires_models: whether the body needs the resources that run the modalities' models.
        prepare: called in each run before the inputs are compared; raises where the stage cannot run.
        extra_inputs: inputs besides upstream data and `code_version` (fingerprints, parts of the spec).
        is_still_valid: whether the stored result still describes the store; called when no input changed.
        live_checks: checks of external state, run in every run.
        shown_contract: contract of the asset's rows; by default that of its table.
        pool: Dagster pool of its runs: ``network``, ``ray`` or ``gpu``; the instance sets the limits.
    """

    def wrap(body: Body) -> dg.AssetsDefinition:
        name = body.__name__
        contract: Contract = shown_contract or getattr(contracts, name.upper())

        @dg.asset(
            key=asset_key(name),
            description=inspect.getdoc(body),
            group_name=group,
            deps=[asset_key(dep) for dep in deps],
            kinds=set(kinds),
            owners=OWNERS,
            code_version=code_version,
            # The first asset is started by the sensor `specs`, by `mm` or by hand; the others follow.
            automation_condition=materialize_when_upstream_changes() if deps else None,
            pool=pool or None,
            partitions_def=cells,
            required_resource_keys=RESOURCES
            | ({embedder_key(modality) for modality in modalities()} if requires_models else set()),
            metadata={"dagster/column_schema": column_schema(contract)},
            check_specs=_check_specs(name, checks),
        )
        def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            with one_line_failures():
                run = CellRun(context, name, code_version, tuple(deps))
                entry = read_patiently(lambda: enter(run, prepare, extra_inputs, is_still_valid))
                if entry.stored is not None:
                    return replay(run, entry, entry.stored, live_checks)
                return publish(run, entry, body(run), live_checks)

        return materialize

    return wrap


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
                description=f"{check} of a cell",
            )
            for check, blocking in checks
        ]
