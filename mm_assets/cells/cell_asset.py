"""The decorator that makes a software-defined asset of a five-line body."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from mm_assets.cells.automation_condition import flows_on
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

Body = Callable[[CellRun], StageOutput]
OWNERS = ["team:data-platform"]
RESOURCES = {"catalog", "cache", "sandbox", "ray"}


def _no_inputs(_run: CellRun) -> dict[str, Any]:
    return {}


def _always(_run: CellRun) -> bool:
    return True


def _no_checks(_run: CellRun) -> list[Check]:
    return []


def cell_asset(  # noqa: PLR0913 - a declaration, by keywords alone
    *,
    group: str,
    deps: Iterable[str] = (),
    kinds: Iterable[str] = (),
    code_version: str = "1",
    checks: Iterable[tuple[str, bool]] = (),
    requires_models: bool = False,
    extra_inputs: Callable[[CellRun], dict[str, Any]] = _no_inputs,
    is_still_valid: Callable[[CellRun], bool] = _always,
    live_checks: Callable[[CellRun], list[Check]] = _no_checks,
    shown_contract: Contract | None = None,
    pool: str = "",
) -> Callable[[Body], dg.AssetsDefinition]:
    """Declare one of the twelve components.

    Args:
        group: Dagster group; the numbers order them as the graph reads, from left to right.
        deps: upstream assets.
        checks: (name, blocking) of the checks that the body reports.
        requires_models: whether the body needs the resources that run the modalities' models.
        extra_inputs: what besides upstream data and `code_version` decides the result (fingerprints, the
            spec's part).
        is_still_valid: whether the stored result still describes the store; called when no input changed.
        live_checks: checks of the outside world, made anew in every run.
        shown_contract: the contract of the rows that the asset stands for; by default that of its table.
        pool: what its runs compete for: ``network``, ``ray`` or ``gpu``; limits are the instance's.
    """

    def wrap(body: Body) -> dg.AssetsDefinition:
        name = body.__name__
        contract: Contract = shown_contract or getattr(contracts, name.upper())

        @dg.asset(
            name=name,
            description=inspect.getdoc(body),
            group_name=group,
            deps=list(deps),
            kinds=set(kinds),
            owners=OWNERS,
            code_version=code_version,
            # The spec's sensor, the command line and people start the first; the rest follow.
            automation_condition=flows_on() if deps else None,
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
                entry = enter(run, extra_inputs, is_still_valid)
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
                check, asset=asset, blocking=blocking, partitions_def=cells, description=f"{check} of a cell"
            )
            for check, blocking in checks
        ]
