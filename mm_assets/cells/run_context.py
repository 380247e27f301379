"""The surroundings of one stage of a cell in one run: its resources and log, with or without Dagster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.runner import KernelRunner
from mm_resources.registry.pins import Pin
from mm_resources.work_settings import ModelSettings


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a stage.

    Attributes:
        cell: the cell of the run.
        run_id: id of the run.
        tags: tags of the run, see `run_tags`.
        catalog: the parts of the store.
        limits: limits of sandboxed children.
        open_models: returns the settings of the modality's models.
        open_runner: returns the runner of kernels.
        find_end: returns the status with which the run was marked as finished; "" while it is under way.
        checks: names of the stage's checks.
        log: logger of the run.
        report_pin: reports a published pin to Dagster.
    """

    cell: Cell
    run_id: str
    tags: Mapping[str, str]
    catalog: Catalog
    limits: Limits
    open_models: Callable[[], ModelSettings]
    open_runner: Callable[[], KernelRunner]
    find_end: Callable[[], str] = lambda: ""
    checks: frozenset[str] = frozenset()
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("mm"))
    report_pin: Callable[[Pin], None] = lambda _pin: None
