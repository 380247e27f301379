"""Stages on the difference: the samples whose rows a stage computes again, and the rows that it takes over.

The rows of a sample are a function of its rows upstream, of content-keyed results and of the stage's rules.
Where the rules are those of a base, only samples whose rows upstream differ from those that the base was
computed from have other rows; and samples that the base records as failed, which are tried again. Any doubt
is a full run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.increment import CONTENT, Increment
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.identity import canonical_json, digest
from mm_embed_kernels.sql import CellReader
from mm_resources.cell import Cell
from mm_resources.lineages.bounds import BOUNDS
from mm_resources.lineages.changes import changed_owners
from mm_resources.tables.stage_refs import StageRef

SAMPLE = "sample_id"
# Their ids are held in memory, some 200 bytes each.
MOST_OWNERS = 1_000_000
# Stands for the columns that a spec declares.
USER_COLUMNS = "user__*"


def columns_of(asset: str, *left_out: str) -> tuple[str, ...]:
    """Return the columns of an asset's contract without those of makers, and without some more."""
    contract: Contract = getattr(contracts, asset.upper())
    return tuple(name for name in contract.schema.names if name not in (*contract.makers, *left_out))


@dataclass(frozen=True)
class RowInputs:
    """Inputs of the rows of one owner.

    Attributes:
        columns: upstream asset -> columns that the rows are computed from; the user's columns of
            `dataset_registry` besides, if it is named with its `USER_COLUMNS`.
        rules: returns what decides beside the rows upstream and the code version; None where the rows cannot
            be computed by difference.
        owner: column that names the owner of a row: its sample, or its content.
        holds: returns whether the rows of a base, which are read by columns, still describe the store.
        evicting: later stages that evict cached results of this one and may fail to compute them again: their
            failed samples count as this stage's.
    """

    columns: Mapping[str, tuple[str, ...]]
    rules: Callable[[CellRun], dict[str, Any] | None]
    owner: str = SAMPLE
    holds: Callable[[CellRun, CellReader], bool] = lambda _run, _read: True
    evicting: tuple[str, ...] = ()

    def columns_of(self, run: CellRun, asset: str) -> tuple[str, ...]:
        """Return the columns of an upstream asset that count."""
        names = self.columns[asset]
        if USER_COLUMNS not in names:
            return names
        user = [item.name for item in run.spec.user_fields]
        return (*(name for name in names if name != USER_COLUMNS), *user)


def row_code(run: CellRun, inputs: RowInputs | None) -> str:
    """Return the digest of what decides beside the rows upstream; "" where rows come by no difference."""
    rules = inputs.rules(run) if inputs is not None else None
    if rules is None:
        return ""
    # Rows of any version may have been made of results that were found to be wrong.
    repairs = str(run.catalog.cache.count_notes())
    return digest("rows", run.asset, run.code_version, repairs, canonical_json(rules))


def plan_increment(run: CellRun, inputs: RowInputs | None, code: str) -> Increment | None:
    """Return the run on the difference from the best base; None where all rows are to be computed."""
    if inputs is None or not code:
        return None
    own = run.snapshot.state(run.asset)
    # A stage out of date has no inputs: its rows, or the results that they were made of, are in doubt, and
    # those of other versions may be made of the same.
    if own is not None and not own.meta.inputs:
        return None
    for cell in (run.cell, *run.other_versions()):
        base = run.catalog.tables.state(run.asset, cell)
        if base is None or base.code != code or not base.meta.inputs or not base.digest:
            continue
        owners = _owners(run, inputs, base, cell)
        most = min(BOUNDS.difference * max(base.meta.row_count, 1), MOST_OWNERS)
        if owners is not None and len(owners) <= most:
            return Increment(base, inputs.owner, owners, partial(_contents, run, inputs, owners))
    return None


def _owners(run: CellRun, inputs: RowInputs, base: StageRef, cell: Cell) -> pa.Array | None:
    """Return the owners whose rows may differ from the base's; None where that cannot be told."""
    tables = run.catalog.tables
    if not tables.is_sound_base(base, run.contract(run.asset)):
        return None
    if not inputs.holds(run, partial(tables.read, run.asset, cell, at=base.place)):
        return None
    found = [_failed_owners(run, inputs, base, cell)]
    for asset in inputs.columns:
        now, then = run.snapshot.state(asset), base.read.get(asset)
        if now is None or then is None:
            return None
        if [now.table, now.lance_version] == then:
            continue
        contract = run.contract(asset)
        key = inputs.owner if inputs.owner in contract.schema.names else CONTENT
        changed = changed_owners(
            tables.store,
            (str(then[0]), int(then[1])),
            (now.table, now.lance_version),
            key,
            inputs.columns_of(run, asset),
            contract.stand_ins,
        )
        if changed is not None and key != inputs.owner:
            changed = _samples_of(run, inputs, changed)
        found.append(changed)
    known = [each.cast(pa.string()) for each in found if each is not None]
    # A row without an owner, such as a failed one without content, is no row of this stage.
    return pc.unique(pa.concat_arrays(known)).drop_null() if len(known) == len(found) else None


def _failed_owners(run: CellRun, inputs: RowInputs, base: StageRef, cell: Cell) -> pa.Array | None:
    """Return the owners of the base's failures; None where one has no owner, or they are not all there."""
    failures, others = run.catalog.failures, inputs.evicting
    evicted = failures.read(cell, [inputs.owner], others).read_all()[inputs.owner].combine_chunks()
    if not base.meta.failed:
        return evicted
    own = failures.read(cell, [inputs.owner], versions={run.asset: base.meta.failures})
    found = own.read_all()[inputs.owner].combine_chunks()
    if found.null_count or len(found) != base.meta.failed:
        return None
    return pa.concat_arrays([found, evicted])


def _samples_of(run: CellRun, inputs: RowInputs, contents: pa.Array) -> pa.Array:
    """Return the samples of today with some contents."""
    asset = _with_contents(run, inputs)
    if not len(contents):
        return pa.array([], pa.string())
    return _matches(run, asset, SAMPLE, CONTENT, contents)


def _contents(run: CellRun, inputs: RowInputs, owners: pa.Array) -> pa.Array:
    """Return the contents of the owners that are computed again."""
    if inputs.owner == CONTENT:
        return owners
    return pc.unique(_matches(run, _with_contents(run, inputs), CONTENT, SAMPLE, owners)).drop_null()


def _matches(run: CellRun, asset: str, column: str, by: str, values: pa.Array) -> pa.Array:
    """Return a column of the rows upstream of which another column has one of some values."""
    state = run.snapshot.state(asset)
    rows = run.catalog.tables.read(asset, run.cell, [column, by], at=state.place if state else None)
    found = [batch[column].filter(pc.is_in(batch[by], value_set=values)) for batch in rows]
    return pa.concat_arrays([pa.array([], pa.string()), *found])


def _with_contents(run: CellRun, inputs: RowInputs) -> str:
    """Return the upstream asset that names the content of each sample."""
    return next(name for name in inputs.columns if {SAMPLE, CONTENT} <= set(run.contract(name).schema.names))


def read_places(run: CellRun, inputs: RowInputs | None) -> dict[str, list[Any]]:
    """Return the rows upstream that the stage is computed from, as a ref records them."""
    states = {name: run.snapshot.state(name) for name in (inputs.columns if inputs is not None else ())}
    return {name: [ref.table, ref.lance_version] for name, ref in states.items() if ref is not None}
