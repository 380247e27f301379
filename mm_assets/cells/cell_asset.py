"""The decorator that declares an asset body as one of the twelve assets of a cell, without Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.row_inputs import RowInputs
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.contracts import Contract

Body = Callable[[CellRun], StageOutput]


def _no_inputs(_run: CellRun) -> dict[str, Any]:
    return {}


def _no_preparation(_run: CellRun) -> None:
    pass


def _no_checks(_run: CellRun) -> list[Check]:
    return []


@dataclass(frozen=True)
class CellAsset:
    """A declared asset; `asset_definition` defines it for Dagster.

    The attributes are the arguments of `cell_asset`.
    """

    body: Body
    name: str
    group: str
    deps: tuple[str, ...]
    kinds: tuple[str, ...]
    code_version: str
    checks: tuple[tuple[str, bool], ...]
    requires_models: bool
    prepare: Callable[[CellRun], None]
    extra_inputs: Callable[[CellRun], dict[str, Any]]
    is_still_valid: Callable[[CellRun], bool]
    live_checks: Callable[[CellRun], list[Check]]
    shown_contract: Contract | None
    pool: str
    row_inputs: RowInputs | None


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
    row_inputs: RowInputs | None = None,
) -> Callable[[Body], CellAsset]:
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
        row_inputs: inputs of the rows of a sample; None where all rows are computed in each run.
    """

    def wrap(body: Body) -> CellAsset:
        return CellAsset(
            body,
            body.__name__,
            group,
            tuple(deps),
            tuple(kinds),
            code_version,
            tuple(checks),
            requires_models,
            prepare,
            extra_inputs,
            is_still_valid,
            live_checks,
            shown_contract,
            pool,
            row_inputs,
        )

    return wrap
