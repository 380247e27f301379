"""Curation: every rule judges every sample, all verdicts are recorded, the split follows from the group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.contracts.stages import DUPLICATE, RULE_DECISION
from mm_embed_kernels.identity import canonical, digest
from mm_embed_kernels.rules import Rule
from mm_embed_kernels.splits import split_of


def profile_digest(rules: list[Rule], shares: Mapping[str, float]) -> str:
    """Whatever changes a decision changes it: rule ids, versions, actions, thresholds, split shares."""
    return digest("curation", canonical([(r.name, r.version, r.action, r.threshold) for r in rules]), canonical(list(shares.items())))


def curate(
    read: Callable[[list[str] | None], pa.RecordBatchReader],
    rules: list[Rule],
    dataset: str,
    shares: Mapping[str, float],
    placed: Mapping[str, str] | None = None,
) -> Iterator[pa.Table]:
    """Decisions for all samples of a cell, streaming.

    Args:
        read: streams chosen columns (None: all) of the cell's validated samples; may be called again.
        rules: configured rules, cheapest first.
        dataset: name of the dataset, for the split hash.
        shares: split name -> share.
        placed: split group -> split, of groups that an earlier version put elsewhere than their hash says.

    Yields:
        Tables in the `CURATED_SAMPLES` contract (plus the caller's extra columns, unchanged).
    """
    for rule in rules:
        rule.prepare(read)
    for batch in read(None):
        if batch.num_rows:
            yield decide(pa.Table.from_batches([batch]), rules, dataset, shares, placed or {})


def decide(batch: pa.Table, rules: list[Rule], dataset: str, shares: Mapping[str, float], placed: Mapping[str, str]) -> pa.Table:
    """One batch of `curate`; `prepare` has been called on the rules."""
    size = batch.num_rows
    decisions: list[list[dict[str, Any]]] = [[] for _ in range(size)]
    kept = [True] * size
    first: list[str | None] = [None] * size
    reasons: list[str | None] = [None] * size
    groups: list[str | None] = [None] * size
    duplicates: list[list[dict[str, Any]]] = [[] for _ in range(size)]
    split_groups: list[str] = pc.coalesce(batch["group"], batch["entity_id"]).to_pylist()
    for rule in rules:
        verdict = rule.judge(batch)
        passes = pc.fill_null(verdict.passed, True).to_pylist()
        values = verdict.value.to_pylist()
        for row in range(size):
            reason = None if passes[row] else f"{verdict.reason}: {values[row]} ({rule.threshold})"
            decisions[row].append(
                {
                    "rule": rule.name,
                    "version": rule.version,
                    "passed": passes[row],
                    "action": rule.action,
                    "value": None if values[row] is None else str(values[row]),
                    "threshold": rule.threshold,
                    "reason": reason,
                }
            )
            if not passes[row] and rule.action == "drop" and kept[row]:
                kept[row], first[row], reasons[row] = False, rule.name, reason
        if found := rule.evidence(batch):
            columns = (found.group.to_pylist(), found.duplicates.to_pylist(), found.follows.to_pylist())
            for row, (group, evidence, follows) in enumerate(zip(*columns, strict=True)):
                groups[row] = groups[row] or group
                duplicates[row] += evidence
                split_groups[row] = follows or split_groups[row]
    passed = [[item["rule"] for item in row if item["passed"]] for row in decisions]
    added = {
        "kept": pa.array(kept),
        "rule": pa.array(first, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        "rules": pa.array(decisions, pa.list_(RULE_DECISION)),
        "passed": pa.array(passed, pa.list_(pa.string())),
        "quality_score": pa.array([len(p) / max(1, len(r)) for p, r in zip(passed, decisions, strict=True)], pa.float64()),
        "duplicate_group": pa.array(groups, pa.string()),
        "duplicates": pa.array(duplicates, pa.list_(DUPLICATE)),
        "split_group": pa.array(split_groups, pa.string()),
        "split": pa.array([placed.get(group) or split_of(dataset, group, shares) for group in split_groups], pa.string()),
    }
    wanted = [name for name in batch.column_names if name in CURATED_SAMPLES.schema.names or name.startswith("user__")]
    table = batch.select(wanted)
    for name, column in added.items():
        table = table.append_column(name, column)
    return table
