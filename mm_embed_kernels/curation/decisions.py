"""Decisions about samples: every rule judges each of them, all verdicts are recorded, groups get splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.contracts.samples import DUPLICATE, RULE_DECISION
from mm_embed_kernels.curation.splits import Assignment, SplitAssignments
from mm_embed_kernels.identity import canonical_json, digest
from mm_embed_kernels.rules import Rule
from mm_embed_kernels.rules.base import Evidence
from mm_embed_kernels.sql import CellReader

# The decision that belongs to no rule: a new sample that is similar to samples of several splits is dropped.
SPLIT_CONFLICT = "split_conflict"


def profile_digest(rules: list[Rule], shares: Mapping[str, float]) -> str:
    """Return a digest of what decides: rule ids, versions, actions and thresholds, and split shares."""
    return digest(
        "curation",
        canonical_json([(r.name, r.version, r.action, r.threshold) for r in rules]),
        canonical_json(list(shares.items())),
    )


def curate(
    read: Callable[[list[str] | None], pa.RecordBatchReader],
    rules: list[Rule],
    dataset: str,
    shares: Mapping[str, float],
    parent_splits: pa.RecordBatchReader | pa.Table | None = None,
    parent_samples: pa.RecordBatchReader | pa.Table | None = None,
    equal_groups: pa.RecordBatchReader | pa.Table | None = None,
) -> Iterator[pa.Table]:
    """Stream the decisions about all samples of a cell.

    Args:
        read: streams chosen columns (None: all) of the cell's validated samples; may be called again.
        rules: configured rules, cheapest first.
        dataset: name of the dataset, for the split hash.
        shares: split name -> share.
        parent_splits: see `SplitAssignments`.
        parent_samples: see `SplitAssignments`.
        equal_groups: see `SplitAssignments`.

    Yields:
        Tables in the `CURATED_SAMPLES` contract (plus the user's columns, unchanged).
    """
    for rule in rules:
        # Samples that a cheaper rule drops are not compared: none of them may be the one of a group that
        # stays.
        cheaper = [
            other
            for other in rules
            if other.action == "drop" and other.cost < rule.cost and not other.groups()
        ]
        rule.prepare(_skip_dropped(read, cheaper))
    splits = SplitAssignments(read, rules, dataset, shares, parent_splits, parent_samples, equal_groups)
    for batch in read(_judged_columns(read(None).schema.names, rules)):
        if batch.num_rows:
            yield decide(pa.Table.from_batches([batch]), rules, splits)


def _skip_dropped(read: CellReader, droppers: list[Rule]) -> CellReader:
    """Return a reader of the samples that none of some rules, which judge each row alone, drops."""

    def read_rest(columns: list[str]) -> pa.RecordBatchReader:
        judged = (column for rule in droppers for column in rule.columns)
        rows = read(list(dict.fromkeys([*columns, *judged])))
        schema = pa.schema([rows.schema.field(name) for name in columns])
        tables = (_drop_rows(pa.Table.from_batches([batch]), droppers).select(columns) for batch in rows)
        return pa.RecordBatchReader.from_batches(
            schema, (batch for table in tables for batch in table.to_batches())
        )

    return read_rest if droppers else read


def _drop_rows(table: pa.Table, droppers: list[Rule]) -> pa.Table:
    return table.filter(reduce(pc.and_, [pc.fill_null(rule.judge(table).passed, True) for rule in droppers]))


def _judged_columns(names: list[str], rules: list[Rule]) -> list[str]:
    """Return the columns that are judged or published: not the signatures, which may be large."""
    judged = {column for rule in rules for column in rule.columns if column not in rule.compared}
    return [name for name in names if name in judged or _is_published(name)]


def _is_published(name: str) -> bool:
    return name in CURATED_SAMPLES.schema.names or name.startswith("user__")


def decide(batch: pa.Table, rules: list[Rule], splits: SplitAssignments) -> pa.Table:
    """Return one batch of `curate`; `prepare` has been called on the rules."""
    decisions = _Decisions(batch.num_rows)
    for rule in rules:
        decisions.judge(batch, rule)
    assignments = splits.assign(batch)
    for row, assignment in enumerate(assignments):
        decisions.set_split(row, assignment)
    table = batch.select([name for name in batch.column_names if _is_published(name)])
    for name, column in decisions.columns(len(rules)).items():
        table = table.append_column(name, column)
    table = table.append_column("split_group", pa.array([each.group for each in assignments], pa.string()))
    return table.append_column("split", pa.array([each.split for each in assignments], pa.string()))


# Numbers of rows, ascending, and a value for each.
_Part = tuple[np.ndarray[Any, Any], pa.Array]


class _Decisions:
    """Decisions about the rows of a batch, accumulated rule by rule."""

    def __init__(self, size: int) -> None:
        self._size, self._every = size, np.arange(size)
        self._decisions: list[_Part] = [(self._every[:0], pa.array([], RULE_DECISION))]
        self._passes: list[_Part] = [(self._every[:0], pa.array([], pa.string()))]
        self._kept = [True] * size
        self._rules: list[str | None] = [None] * size
        self._reasons: list[str | None] = [None] * size
        self._groups: list[str | None] = [None] * size
        self._duplicates: list[list[dict[str, Any]]] = [[] for _ in range(size)]

    def judge(self, batch: pa.Table, rule: Rule) -> None:
        """Record the verdict of a rule."""
        verdict, threshold = rule.judge(batch), rule.threshold
        passed = np.asarray(pc.fill_null(verdict.passed, True), np.bool_)
        values = [None if value is None else str(value) for value in verdict.value.to_pylist()]
        reasons: list[str | None] = [None] * self._size
        for row in np.flatnonzero(~passed).tolist():
            reasons[row] = f"{verdict.reason}: {values[row]} ({threshold})"
            if rule.action == "drop":
                self._drop(row, rule.name, reasons[row])
        records = _records(rule.name, rule.version, passed, rule.action, values, threshold, reasons)
        self._decisions.append((self._every, records))
        rows = self._every[passed]
        self._passes.append((rows, pa.repeat(rule.name, len(rows))))
        if verdict.evidence:
            for row, group, duplicates in _evidence_rows(verdict.evidence):
                # Later rules compare more broadly: equal samples are near, too.
                self._groups[row] = group or self._groups[row]
                self._duplicates[row] += duplicates

    def set_split(self, row: int, assignment: Assignment) -> None:
        """Record a conflict of splits, if there is one."""
        if assignment.newcomer:
            reason = f"is alike to samples in several splits: {assignment.conflict}"
            failed = np.zeros(1, np.bool_)
            record = _records(
                SPLIT_CONFLICT, "1", failed, "drop", [assignment.conflict], "one split", [reason]
            )
            self._decisions.append((self._every[row : row + 1], record))
            self._drop(row, SPLIT_CONFLICT, reason)
        elif assignment.conflict and self._groups[row]:
            # Samples that a parent has in several splits stay there, and no group is in two of them.
            self._groups[row] = f"{self._groups[row]}-{assignment.split}"

    def _drop(self, row: int, rule: str, reason: str | None) -> None:
        if self._kept[row]:
            self._kept[row], self._rules[row], self._reasons[row] = False, rule, reason

    def columns(self, rules: int) -> dict[str, pa.Array]:
        """Return the columns of `CURATED_SAMPLES` from ``kept`` to ``duplicates``.

        Args:
            rules: number of rules, of which the quality score is a share.
        """
        passed = _lists_by_row(self._passes, self._size)
        return {
            "kept": pa.array(self._kept),
            "rule": pa.array(self._rules, pa.string()),
            "reason": pa.array(self._reasons, pa.string()),
            "rules": _lists_by_row(self._decisions, self._size),
            "passed": passed,
            "quality_score": pa.array(np.asarray(pc.list_value_length(passed)) / max(1, rules)),
            "duplicate_group": pa.array(self._groups, pa.string()),
            "duplicates": pa.array(self._duplicates, pa.list_(DUPLICATE)),
        }


def _lists_by_row(parts: list[_Part], size: int) -> pa.ListArray:
    """Return a list for each row, in which values are in the order of the parts."""
    rows = np.concatenate([rows for rows, _ in parts])
    values = pa.concat_arrays([values for _, values in parts])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values.take(pa.array(np.argsort(rows, kind="stable")))
    )


def _records(
    rule: str,
    version: str,
    passed: np.ndarray[Any, Any],
    action: str,
    values: Sequence[str | None],
    threshold: str,
    reasons: Sequence[str | None],
) -> pa.StructArray:
    """Return a `RULE_DECISION` for each row."""
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


def _evidence_rows(evidence: Evidence) -> Iterator[tuple[int, str | None, list[dict[str, Any]]]]:
    """Stream row, group and duplicates of the rows with a group or a duplicate, which are few."""
    some = np.asarray(
        pc.or_(evidence.group.is_valid(), pc.greater(pc.list_value_length(evidence.duplicates), 0)), np.bool_
    )
    rows = pa.array(np.flatnonzero(some))
    return zip(
        rows.to_pylist(),
        evidence.group.take(rows).to_pylist(),
        evidence.duplicates.take(rows).to_pylist(),
        strict=True,
    )
