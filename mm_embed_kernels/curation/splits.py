"""Splits without leaks: similar samples, and those declared to belong together, get the same split.

Samples of a parent version keep theirs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.rules.base import Rule
from mm_embed_kernels.similarity.connected_components import merge_components
from mm_embed_kernels.sql import CellReader, parquet_table

# The split of each split group of a parent version.
PARENT_SPLITS = pa.schema([("split_group", pa.string()), ("split", pa.string())])
# Split groups of a version whose samples have the same bytes, and the name by which all of them are placed.
EQUAL_GROUPS = pa.schema([("split_group", pa.string()), ("unit", pa.string())])
# The samples of a cell whose content a parent version has.
PARENT_SAMPLES = pa.schema([("sample_id", pa.string())])

_SPLIT_GROUP = 'coalesce("group", entity_id)'


class Assignment(NamedTuple):
    """The split of a sample.

    Attributes:
        group: name that is hashed into the split.
        split: name of the split.
        conflict: names of the splits of the samples that it is similar to, where those are several, else "".
        newcomer: whether there is a conflict and the sample is new, so that it has no split.
    """

    group: str
    split: str
    conflict: str = ""
    newcomer: bool = False


class SplitAssignments:
    """The splits of all samples of a cell, by the groups that the rules prepared; stored in a file.

    Args:
        read: streams chosen columns of the cell's samples.
        rules: prepared rules.
        dataset: name of the dataset, for the split hash.
        shares: split name -> share.
        parent_splits: rows of `PARENT_SPLITS`.
        parent_samples: rows of `PARENT_SAMPLES`.
        equal_groups: rows of `EQUAL_GROUPS`, the same for all cells of a version whose samples follow each
            other by their ids; None where none do.
    """

    def __init__(
        self,
        read: CellReader,
        rules: Sequence[Rule],
        dataset: str,
        shares: Mapping[str, float],
        parent_splits: pa.RecordBatchReader | pa.Table | None = None,
        parent_samples: pa.RecordBatchReader | pa.Table | None = None,
        equal_groups: pa.RecordBatchReader | pa.Table | None = None,
    ) -> None:
        self._dataset, self._shares = dataset, shares
        self._folder = tempfile.TemporaryDirectory(prefix="mm-splits-")
        folder = Path(self._folder.name)
        splits = sql.save(
            "FROM splits",
            folder / "splits.parquet",
            splits=PARENT_SPLITS.empty_table() if parent_splits is None else parent_splits,
        )
        equals = sql.save(
            "FROM equals",
            folder / "equals.parquet",
            equals=EQUAL_GROUPS.empty_table() if equal_groups is None else equal_groups,
        )
        members = _save_members(read, rules, folder / "members.parquet")
        self._assignments = _save_assignments(
            members, splits, equals, folder / "assignments.parquet", equal_groups is not None
        )
        self._newcomers = _save_newcomers(
            members,
            self._assignments,
            PARENT_SAMPLES.empty_table() if parent_samples is None else parent_samples,
            folder / "newcomers.parquet",
        )
        self._any = pq.read_metadata(self._assignments).num_rows > 0

    def assign(self, batch: pa.Table) -> list[Assignment]:
        """Return the assignment of each row of a batch, from ``sample_id``, ``group`` and ``entity_id``."""
        own: list[str] = pc.coalesce(batch["group"], batch["entity_id"]).to_pylist()
        stored: dict[int, dict[str, Any]] = {}
        if self._any:
            rows = pa.table(
                {
                    "row": pa.array(range(len(own)), pa.int32()),
                    "sample_id": batch["sample_id"],
                    "split_group": pa.array(own),
                }
            )
            statement = f"""
            SELECT b.row, p.target, p.split, p.conflict, n.sample_id IS NOT NULL AS newcomer
            FROM batch b JOIN {parquet_table(self._assignments)} p USING (split_group)
                 LEFT JOIN {parquet_table(self._newcomers)} n USING (sample_id)
            """
            stored = {each["row"]: each for each in sql.fetch(statement, batch=rows).to_pylist()}
        return [self._assign_row(group, stored.get(row)) for row, group in enumerate(own)]

    def _assign_row(self, group: str, stored: dict[str, Any] | None) -> Assignment:
        if stored is None:
            return Assignment(group, split_of(self._dataset, group, self._shares))
        split = stored["split"] or split_of(self._dataset, stored["target"], self._shares)
        return Assignment(stored["target"], split, stored["conflict"] or "", stored["newcomer"])


def _save_members(read: CellReader, rules: Sequence[Rule], path: Path) -> Path:
    """Save the samples that a rule grouped, with numbers of split group (a) and duplicate group (b)."""
    groups = (
        " UNION ALL ".join(statement for rule in rules if (statement := rule.groups()))
        or 'SELECT NULL::VARCHAR AS sample_id, NULL AS "group"'
    )
    statement = f"""
    SELECT s.sample_id, s.key, s.content_hash, s.split_group, s.declared, s.sample_id = s.split_group AS own,
           dense_rank() OVER (ORDER BY s.split_group) - 1 AS a,
           dense_rank() OVER (ORDER BY d."group") - 1 AS b
    FROM (
      SELECT sample_id, key, content_hash, "group" IS NOT NULL AS declared, {_SPLIT_GROUP} AS split_group
      FROM samples
    ) s
         JOIN ({groups}) d USING (sample_id)
    """
    return sql.save(statement, path, samples=read(["sample_id", "key", "content_hash", "group", "entity_id"]))


def _save_assignments(members: Path, splits: Path, equals: Path, path: Path, linked: bool) -> Path:
    """Save target group, split and conflict of each split group whose own hash does not give its split.

    A component of similar samples follows its groups with a parent's split, if there are such, else its first
    declared group by name. A component without either is placed by its smallest content, so that a renamed
    sample moves none of the others; where samples are linked, and placed by the ids of others, by the content
    of equal samples, which all cells know, or else by its first sample by key. Where a parent has it in
    several splits, each group keeps its own.
    """
    content = "false" if linked else "bool_and(own)"
    statement = f"""
    WITH first AS (
      SELECT m.split_group, l.label, min((m.key, m.sample_id)) AS first, bool_or(m.declared) AS declared,
             bool_and(m.own) AS own, min(m.content_hash) AS content
      FROM {parquet_table(members)} m JOIN labels l ON l.a = m.a GROUP BY ALL
    ), joined AS (
      SELECT f.*, p.split, e.unit FROM first f
      LEFT JOIN {parquet_table(splits)} p USING (split_group)
      LEFT JOIN {parquet_table(equals)} e USING (split_group)
    ), component AS (
      SELECT label,
             CASE WHEN count(split) > 0 THEN arg_min(split_group, (split IS NULL, first))
                  WHEN bool_or(declared) THEN min(split_group) FILTER (declared)
                  WHEN count(unit) > 0 THEN min(unit)
                  WHEN {content} THEN 'content-' || left(sha256(min(content)), 32)
                  ELSE arg_min(split_group, first) END AS target,
             list_sort(list(DISTINCT split) FILTER (split IS NOT NULL)) AS splits
      FROM joined GROUP BY label
    ), assignments AS (
      SELECT j.split_group, CASE WHEN len(c.splits) > 1 THEN j.split_group ELSE c.target END AS target,
             CASE WHEN len(c.splits) > 1 THEN j.split ELSE c.splits[1] END AS split,
             CASE WHEN len(c.splits) > 1 THEN array_to_string(c.splits, ', ') END AS conflict
      FROM joined j JOIN component c USING (label)
    )
    SELECT * FROM assignments WHERE target <> split_group OR split IS NOT NULL OR conflict IS NOT NULL
    UNION ALL
    SELECT split_group, split_group, split, NULL
    FROM {parquet_table(splits)} ANTI JOIN first USING (split_group)
    UNION ALL
    SELECT split_group, unit, NULL, NULL FROM {parquet_table(equals)}
    WHERE split_group NOT IN (SELECT split_group FROM first)
      AND split_group NOT IN (SELECT split_group FROM {parquet_table(splits)})
    ORDER BY 1
    """
    return sql.save(statement, path, labels=_labels(members))


def _save_newcomers(
    members: Path, assignments: Path, parent_samples: pa.RecordBatchReader | pa.Table, path: Path
) -> Path:
    """Save the ids of the samples in a conflict that the parent does not have."""
    statement = f"""
    SELECT DISTINCT m.sample_id
    FROM {parquet_table(members)} m JOIN {parquet_table(assignments)} p USING (split_group)
         ANTI JOIN parent_samples USING (sample_id)
    WHERE p.conflict IS NOT NULL ORDER BY 1
    """
    return sql.save(statement, path, parent_samples=parent_samples)


def _labels(members: Path) -> pa.Table:
    """Return the component (``label``) of each split group (``a``) that has a duplicate.

    Split groups and duplicate groups are the two kinds of nodes of one graph; its edges are their common
    samples.
    """
    (sizes,) = sql.fetch(
        f"SELECT coalesce(max(a), -1) + 1 AS a, coalesce(max(b), -1) + 1 AS b FROM {parquet_table(members)}"
    ).to_pylist()
    groups = sizes["a"]
    labels = np.arange(groups + sizes["b"], dtype=np.int32)
    with sql.query(f"SELECT DISTINCT a, b FROM {parquet_table(members)}") as edges:
        for batch in edges:
            labels = merge_components(labels, batch["a"].to_numpy(), batch["b"].to_numpy() + groups)
    return pa.table({"a": np.arange(groups, dtype=np.int64), "label": labels[:groups]})


def split_of(dataset: str, group: str, shares: Mapping[str, float]) -> str:
    """Return the split of a group: its hash, as a point in [0, 1), falls into one of the cumulated shares.

    Args:
        dataset: name of the dataset, so that two datasets are split independently.
        group: entity id or declared group; all its samples get one split.
        shares: split name -> share, summing to 1, in the spec's order.
    """
    raw = hashlib.sha256(f"split\0{dataset}\0{group}".encode()).digest()[:8]
    point = int.from_bytes(raw, "big") / 2**64
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if point < edge:
            return name
    return [name for name, share in shares.items() if share > 0][-1]
