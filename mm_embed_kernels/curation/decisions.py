"""Curation: every rule judges every sample, all verdicts are recorded, the split follows from the group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.contracts.samples import DUPLICATE, RULE_DECISION
from mm_embed_kernels.curation.splits import Placement
from mm_embed_kernels.identity import canonical, digest
from mm_embed_kernels.rules import Rule
from mm_embed_kernels.rules.base import Evidence
from mm_embed_kernels.sql import CellReader


def profile_digest(rules: list[Rule], shares: Mapping[str, float]) -> str:
    """Whatever changes a decision changes it: rule ids, versions, actions, thresholds, split shares."""
    return digest(
        "curation",
        canonical([(r.name, r.version, r.action, r.threshold) for r in rules]),
        canonical(list(shares.items())),
    )


# The decision that no rule makes: what a sample is alike to stands in several splits, and the sample is new among it.
SPLIT_CONFLICT = "split_conflict"


def curate(
    read: Callable[[list[str] | None], pa.RecordBatchReader],
    rules: list[Rule],
    dataset: str,
    shares: Mapping[str, float],
    placed: pa.RecordBatchReader | pa.Table | None = None,
    known: pa.RecordBatchReader | pa.Table | None = None,
) -> Iterator[pa.Table]:
    """Decisions for all samples of a cell, streaming.

    Args:
        read: streams chosen columns (None: all) of the cell's validated samples; may be called again.
        rules: configured rules, cheapest first.
        dataset: name of the dataset, for the split hash.
        shares: split name -> share.
        placed, known: what a parent version has placed, see `Placement`.

    Yields:
        Tables in the `CURATED_SAMPLES` contract (plus the caller's extra columns, unchanged).
    """
    for rule in rules:
        # What a cheaper rule drops is compared with nothing: it must not be what is kept of its group.
        rule.prepare(
            _surviving(
                read,
                [
                    other
                    for other in rules
                    if other.action == "drop" and other.cost < rule.cost and not other.groups()
                ],
            )
        )
    placement = Placement(read, rules, dataset, shares, placed, known)
    for batch in read(_judged(read(None).schema.names, rules)):
        if batch.num_rows:
            yield decide(pa.Table.from_batches([batch]), rules, placement)


def _surviving(read: CellReader, droppers: list[Rule]) -> CellReader:
    """A reader of the samples that these rules, which look at one at a time, do not drop."""

    def surviving(columns: list[str]) -> pa.RecordBatchReader:
        found = read(
            list(dict.fromkeys([*columns, *(column for rule in droppers for column in rule.columns)]))
        )
        schema = pa.schema([found.schema.field(name) for name in columns])
        kept = (_kept(pa.Table.from_batches([batch]), droppers).select(columns) for batch in found)
        return pa.RecordBatchReader.from_batches(
            schema, (batch for table in kept for batch in table.to_batches())
        )

    return surviving if droppers else read


def _kept(table: pa.Table, droppers: list[Rule]) -> pa.Table:
    return table.filter(reduce(pc.and_, [pc.fill_null(rule.judge(table).passed, True) for rule in droppers]))


def _judged(names: list[str], rules: list[Rule]) -> list[str]:
    """The columns that are judged or handed on: not the signatures, which may be large."""
    judged = {column for rule in rules for column in rule.columns if column not in rule.compared}
    return [name for name in names if name in judged or _travels(name)]


def _travels(name: str) -> bool:
    return name in CURATED_SAMPLES.schema.names or name.startswith("user__")


def decide(batch: pa.Table, rules: list[Rule], placement: Placement) -> pa.Table:
    """One batch of `curate`; `prepare` has been called on the rules."""
    size, every = batch.num_rows, np.arange(batch.num_rows)
    decisions: list[_Part] = [(every[:0], pa.array([], RULE_DECISION))]
    passes: list[_Part] = [(every[:0], pa.array([], pa.string()))]
    kept = [True] * size
    first: list[str | None] = [None] * size
    reasons: list[str | None] = [None] * size
    groups: list[str | None] = [None] * size
    duplicates: list[list[dict[str, Any]]] = [[] for _ in range(size)]

    def drop(row: int, rule: str, reason: str | None) -> None:
        if kept[row]:
            kept[row], first[row], reasons[row] = False, rule, reason

    for rule in rules:
        verdict, threshold = rule.judge(batch), rule.threshold
        passed = np.asarray(pc.fill_null(verdict.passed, True), np.bool_)
        values = [None if value is None else str(value) for value in verdict.value.to_pylist()]
        why: list[str | None] = [None] * size
        for row in np.flatnonzero(~passed).tolist():
            why[row] = f"{verdict.reason}: {values[row]} ({threshold})"
            if rule.action == "drop":
                drop(row, rule.name, why[row])
        decisions.append(
            (every, _decisions(rule.name, rule.version, passed, rule.action, values, threshold, why))
        )
        passes.append((chosen := every[passed], pa.repeat(rule.name, len(chosen))))
        if found := verdict.evidence:
            for row, group, evidence in _evident(found):
                # Later rules look further: what is equal is near, too.
                groups[row] = group or groups[row]
                duplicates[row] += evidence
    for row, place in enumerate(places := placement.of(batch)):
        if place.newcomer:
            reason = f"is alike to samples in several splits: {place.conflict}"
            conflict = _decisions(
                SPLIT_CONFLICT, "1", np.zeros(1, np.bool_), "drop", [place.conflict], "one split", [reason]
            )
            decisions.append((every[row : row + 1], conflict))
            drop(row, SPLIT_CONFLICT, reason)
        elif place.conflict and groups[row]:
            # What a parent has placed in several splits stays there, and no group stands in two of them.
            groups[row] = f"{groups[row]}-{place.split}"
    passing = _by_row(passes, size)
    added = {
        "kept": pa.array(kept),
        "rule": pa.array(first, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        "rules": _by_row(decisions, size),
        "passed": passing,
        "quality_score": pa.array(np.asarray(pc.list_value_length(passing)) / max(1, len(rules))),
        "duplicate_group": pa.array(groups, pa.string()),
        "duplicates": pa.array(duplicates, pa.list_(DUPLICATE)),
        "split_group": pa.array([place.group for place in places], pa.string()),
        "split": pa.array([place.split for place in places], pa.string()),
    }
    table = batch.select([name for name in batch.column_names if _travels(name)])
    for name, column in added.items():
        table = table.append_column(name, column)
    return table


# Numbers of rows, ascending, and a value for each.
_Part = tuple[np.ndarray[Any, Any], pa.Array]


def _by_row(parts: list[_Part], size: int) -> pa.ListArray:
    """A list for each row; what is of one row stands in the order of the parts."""
    rows = np.concatenate([rows for rows, _ in parts])
    values = pa.concat_arrays([values for _, values in parts])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values.take(pa.array(np.argsort(rows, kind="stable")))
    )


def _decisions(
    rule: str,
    version: str,
    passed: np.ndarray[Any, Any],
    action: str,
    values: Sequence[str | None],
    threshold: str,
    reasons: Sequence[str | None],
) -> pa.StructArray:
    size = len(passed)
    columns = {
        "rule": pa.repeat(rule, size),
        "version": pa.repeat(version, size),
        "passed": pa.array(passed),
        "action": pa.repeat(action, size),
        "value": pa.array(values, pa.string()),
        "threshold": pa.repeat(threshold, size),
        "reason": pa.array(reasons, pa.string()),
    }
    return pa.StructArray.from_arrays(
        [columns[item.name] for item in RULE_DECISION], fields=list(RULE_DECISION)
    )


def _evident(found: Evidence) -> Iterator[tuple[int, str | None, list[dict[str, Any]]]]:
    """Row, group and duplicates of the rows of which something is known: few."""
    known = np.asarray(
        pc.or_(found.group.is_valid(), pc.greater(pc.list_value_length(found.duplicates), 0)), np.bool_
    )
    rows = pa.array(np.flatnonzero(known))
    return zip(
        rows.to_pylist(),
        found.group.take(rows).to_pylist(),
        found.duplicates.take(rows).to_pylist(),
        strict=True,
    )
