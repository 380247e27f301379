"""The trace of a stage, with the figures that Dagster is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.figures import PREFIX
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.traces import add_attributes, flush_traces, trace_span

_FIGURES = ("rows", "failed", "rows_computed", "rows_reused")


@contextmanager
def trace_stage(run: CellRun) -> Iterator[Callable[[dg.MaterializeResult[Any]], None]]:
    """Trace the work of a stage; yield what takes its result."""
    cell = run.cell
    names = {"dataset": cell.dataset, "version": cell.version, "modality": cell.modality}
    try:
        with trace_span(f"stage {run.asset}", run.run_id, **names) as span:

            def add(result: dg.MaterializeResult[Any]) -> None:
                metadata = result.metadata or {}
                figures = {name: metadata.get(PREFIX + name) for name in _FIGURES}
                add_attributes(span, unchanged=metadata.get("unchanged"), **figures)

            yield add
    finally:
        if run.asset == STAGES[-1]:
            flush_traces()
