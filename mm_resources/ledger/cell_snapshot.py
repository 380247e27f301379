"""The state of a cell: the refs of its stages, and its pin, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin
from mm_resources.registry.registry import Registry
from mm_resources.tables.stage_refs import StageMeta, StageRef
from mm_resources.tables.stage_tables import StageTables


class CellSnapshot:
    """Stage refs and pin of a cell, each read at first use and then cached.

    A snapshot does not follow later commits; take a new one after a publish.
    """

    def __init__(self, tables: StageTables, registry: Registry, cell: Cell) -> None:
        self.cell = cell
        self._tables, self._registry = tables, registry
        self._states: dict[str, StageRef | None] = {}

    def meta(self, stage: str) -> StageMeta | None:
        """The metadata of a stage; None when it was never published."""
        state = self.state(stage)
        return state.meta if state else None

    def state(self, stage: str) -> StageRef | None:
        """The last ref of a stage; None when it was never published."""
        if stage not in self._states:
            self._states[stage] = self._read_state(stage)
        return self._states[stage]

    @cached_property
    def _read_state(self) -> Callable[[str], StageRef | None]:
        return self._tables.states(self.cell)

    @property
    def metas(self) -> Mapping[str, StageMeta]:
        """The metadata of every published stage, in the graph's order."""
        return {stage: meta for stage in STAGES if (meta := self.meta(stage)) is not None}

    def upstream_metas(self, stage: str) -> Mapping[str, StageMeta | None]:
        """The metadata of the stages upstream of one, in the graph's order."""
        return {name: self.meta(name) for name in STAGES[: STAGES.index(stage)]}

    @cached_property
    def pin(self) -> Pin | None:
        """The cell's latest pin."""
        return self._registry.pins.get(self.cell)

    @property
    def closed_gate(self) -> str:
        """The first closed gate, as ``stage: reason``; "" where none is closed."""
        return next((f"{name}: {meta.blocked}" for name, meta in self.metas.items() if meta.blocked), "")
