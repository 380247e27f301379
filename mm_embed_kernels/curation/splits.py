"""Leak-safe splits: what is alike, or declared to belong together, stands in one split; what a parent has placed stays."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.rules.base import Rule
from mm_embed_kernels.similarity.connected_components import merge_components
from mm_embed_kernels.sql import CellReader, parquet_table

PLACED = pa.schema([("split_group", pa.string()), ("split", pa.string())])
KNOWN = pa.schema([("sample_id", pa.string())])
SPLIT_GROUP = 'coalesce("group", entity_id)'

# Split groups and duplicate groups are the two kinds of nodes of one graph, and its edges are their common samples.
_MEMBERS = f"""
SELECT s.sample_id, s.key, s.split_group,
       dense_rank() OVER (ORDER BY s.split_group) - 1 AS a, dense_rank() OVER (ORDER BY d."group") - 1 AS b
FROM (SELECT sample_id, key, {SPLIT_GROUP} AS split_group FROM samples) s JOIN ({{groups}}) d USING (sample_id)
"""
_SIZES = "SELECT coalesce(max(a), -1) + 1 AS a, coalesce(max(b), -1) + 1 AS b FROM {members}"
# A component goes where its first group by key would, among those that are placed if there are such.
_PLACES = """
WITH first AS (
  SELECT m.split_group, l.label, min((m.key, m.sample_id)) AS first FROM {members} m JOIN labels l ON l.a = m.a GROUP BY ALL
), joined AS (SELECT f.*, p.split FROM first f LEFT JOIN {placed} p USING (split_group)
), component AS (
  SELECT label, arg_min(split_group, (split IS NULL, first)) AS target, list_sort(list(DISTINCT split) FILTER (split IS NOT NULL)) AS splits
  FROM joined GROUP BY label
), places AS (
  SELECT j.split_group, CASE WHEN len(c.splits) > 1 THEN j.split_group ELSE c.target END AS target,
         CASE WHEN len(c.splits) > 1 THEN j.split ELSE c.splits[1] END AS split,
         CASE WHEN len(c.splits) > 1 THEN array_to_string(c.splits, ', ') END AS conflict
  FROM joined j JOIN component c USING (label)
)
SELECT * FROM places WHERE target <> split_group OR split IS NOT NULL OR conflict IS NOT NULL
UNION ALL SELECT split_group, split_group, split, NULL FROM {placed} ANTI JOIN first USING (split_group)
ORDER BY 1
"""
_NEWCOMERS = """
SELECT DISTINCT m.sample_id FROM {members} m JOIN {places} p USING (split_group) ANTI JOIN known USING (sample_id)
WHERE p.conflict IS NOT NULL ORDER BY 1
"""
_OF = """
SELECT b.row, p.target, p.split, p.conflict, n.sample_id IS NOT NULL AS newcomer
FROM batch b JOIN {places} p USING (split_group) LEFT JOIN {newcomers} n USING (sample_id)
"""


class Place(NamedTuple):
    """Where a sample stands.

    Attributes:
        group: what is hashed into the split.
        split: name of the split.
        conflict: the splits in which what the sample is alike to stands already, where those are several; else "".
        newcomer: whether the sample is new among them, so that it has no place.
    """

    group: str
    split: str
    conflict: str = ""
    newcomer: bool = False


class Placement:
    """Places for all samples of a cell, out of what `prepare` of the rules has grouped; they lie in a file."""

    def __init__(
        self,
        read: CellReader,
        rules: Sequence[Rule],
        dataset: str,
        shares: Mapping[str, float],
        placed: pa.RecordBatchReader | pa.Table | None = None,
        known: pa.RecordBatchReader | pa.Table | None = None,
    ) -> None:
        """Args:
        read: streams chosen columns of the cell's samples.
        placed: rows of `PLACED`, the split of each split group that the parent version has.
        known: rows of `KNOWN`, the samples of the cell whose content the parent version has.
        """
        self._dataset, self._shares = dataset, shares
        self._folder = tempfile.TemporaryDirectory(prefix="mm-places-")
        folder = Path(self._folder.name)
        held = sql.save(
            "FROM placed",
            folder / "placed.parquet",
            placed=PLACED.empty_table() if placed is None else placed,
        )
        groups = (
            " UNION ALL ".join(statement for rule in rules if (statement := rule.groups()))
            or 'SELECT NULL::VARCHAR AS sample_id, NULL AS "group"'
        )
        samples = read(["sample_id", "key", "group", "entity_id"])
        members = sql.save(_MEMBERS.format(groups=groups), folder / "members.parquet", samples=samples)
        statement = _PLACES.format(members=parquet_table(members), placed=parquet_table(held))
        self._places = sql.save(statement, folder / "places.parquet", labels=_labels(members))
        statement = _NEWCOMERS.format(members=parquet_table(members), places=parquet_table(self._places))
        known = KNOWN.empty_table() if known is None else known
        self._newcomers = sql.save(statement, folder / "newcomers.parquet", known=known)
        self._any = pq.read_metadata(self._places).num_rows > 0

    def of(self, batch: pa.Table) -> list[Place]:
        """The place of each row of a batch that has ``sample_id``, ``group`` and ``entity_id``."""
        import pyarrow.compute as pc

        own: list[str] = pc.coalesce(batch["group"], batch["entity_id"]).to_pylist()
        places: dict[int, dict[str, Any]] = {}
        if self._any:
            asked = pa.table(
                {
                    "row": pa.array(range(len(own)), pa.int32()),
                    "sample_id": batch["sample_id"],
                    "split_group": pa.array(own),
                }
            )
            statement = _OF.format(places=parquet_table(self._places), newcomers=parquet_table(self._newcomers))
            places = {found["row"]: found for found in sql.fetch(statement, batch=asked).to_pylist()}
        return [self._place(group, places.get(row)) for row, group in enumerate(own)]

    def _place(self, group: str, found: dict[str, Any] | None) -> Place:
        if found is None:
            return Place(group, split_of(self._dataset, group, self._shares))
        split = found["split"] or split_of(self._dataset, found["target"], self._shares)
        return Place(found["target"], split, found["conflict"] or "", found["newcomer"])


def _labels(members: Path) -> pa.Table:
    """The component of each split group that holds a duplicate."""
    (sizes,) = sql.fetch(_SIZES.format(members=parquet_table(members))).to_pylist()
    groups = sizes["a"]
    labels = np.arange(groups + sizes["b"], dtype=np.int32)
    with sql.query(f"SELECT DISTINCT a, b FROM {parquet_table(members)}") as edges:
        for batch in edges:
            labels = merge_components(labels, batch["a"].to_numpy(), batch["b"].to_numpy() + groups)
    return pa.table({"a": np.arange(groups, dtype=np.int64), "label": labels[:groups]})


def split_of(dataset: str, group: str, shares: Mapping[str, float]) -> str:
    """The split of a group: its hash, as a point in [0, 1), falls into one of the cumulated shares.

    Args:
        dataset: name of the dataset, so that two datasets are split independently.
        group: entity id, or the declared group; all members go the same way.
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
