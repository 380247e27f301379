"""The decorator that makes a software-defined asset of a five-line body."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from mm_assets.cells.automation_condition import flows_on
from mm_assets.cells.cell_run import CellRun, nothing_to_observe
from mm_assets.cells.checks import Check
from mm_assets.cells.materialization import column_schema
from mm_assets.cells.partitions import cells
from mm_embed_kernels import contracts, sql
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.modalities import modalities
from mm_resources.resources import embedder_key

# Partitioned checks are a preview feature of Dagster; they hold for dynamic multi-partitions, which tests prove.
warnings.filterwarnings("ignore", message=".*partitions_def on an AssetCheckSpec.*")

Body = Callable[[CellRun], dg.MaterializeResult[Any]]
OWNERS = ["team:data-platform"]
RESOURCES = {"registry", "blobs", "tables", "cache", "features", "sandbox", "ray"}


def _nothing(run: CellRun) -> dict[str, Any]:
    return {}


def _always(run: CellRun) -> bool:
    return True


def cell_asset(
    *,
    group: str,
    deps: Iterable[str] = (),
    kinds: Iterable[str] = (),
    code_version: str = "1",
    checks: Iterable[tuple[str, bool]] = (),
    embeds: bool = False,
    depends: Callable[[CellRun], dict[str, Any]] = _nothing,
    holds: Callable[[CellRun], bool] = _always,
    observe: Callable[[CellRun], list[Check]] = nothing_to_observe,
    shows: Contract | None = None,
    pool: str = "",
) -> Callable[[Body], dg.AssetsDefinition]:
    """Declare one of the twelve components.

    Args:
        group: Dagster group; the numbers order them as the graph reads, from left to right.
        deps: upstream assets.
        checks: (name, blocking) of the checks that the body reports.
        embeds: whether the body needs what runs the modality's models.
        depends: what besides upstream data and `code_version` decides the result (fingerprints, the spec's part).
        holds, observe: see `CellRun.enter`.
        pool: what its runs compete for: ``network``, ``ray`` or ``gpu``; limits are the instance's.
        shows: the contract of the rows that a person finds there; by default that of the stage's table.
    """

    def wrap(body: Body) -> dg.AssetsDefinition:
        name = body.__name__
        contract: Contract = shows or getattr(contracts, name.upper())

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
            | ({embedder_key(modality) for modality in modalities()} if embeds else set()),
            metadata={"dagster/column_schema": column_schema(contract)},
            check_specs=[
                dg.AssetCheckSpec(
                    check,
                    asset=name,
                    blocking=blocking,
                    partitions_def=cells,
                    description=f"{check} of a cell",
                )
                for check, blocking in checks
            ],
        )
        def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            run = CellRun(context, name, code_version, tuple(deps))
            try:
                return run.enter(depends, holds, observe) or body(run)
            except Exception as error:
                if not sql.is_out_of_memory(error):
                    raise
                limit = sql.memory_limit()
                raise dg.Failure(
                    f"a join needs more memory than MM_SQL_MEMORY={limit} allows; set it higher",
                    allow_retries=False,
                ) from error

        return materialize

    return wrap
