"""What rules that compare samples share: groups, keepers and evidence, which lie in a file and not in memory."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.samples import DUPLICATE
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules.base import Evidence, Rule, Verdict
from mm_embed_kernels.similarity.connected_components import united
from mm_embed_kernels.sql import CellReader, numbered, stored

# A pair of samples that are near each other, by their numbers, a < b: how near, and the part of each that the other
# shows, where that is not all of it.
MATCH = pa.schema(
    [
        ("a", pa.int32()),
        ("b", pa.int32()),
        ("score", pa.float64()),
        ("span_a", pa.string()),
        ("span_b", pa.string()),
    ]
)
# Pieces of evidence that a sample keeps: the one against the group's keeper first, then the strongest.
_EVIDENCE = 4
_LABEL = pa.schema([("n", pa.int32()), ("label", pa.int32())])
_ROWS = """
SELECT b.row, f."group", f.keeper, f.score, coalesce(f.duplicates, []) AS duplicates FROM batch b JOIN {found} f USING (sample_id)
"""
_FOUND = """
WITH member AS (
  SELECT n, sample_id, 'near-' || first_value(sample_id) OVER (PARTITION BY label ORDER BY key, sample_id) AS "group",
         first_value(n) OVER (PARTITION BY label ORDER BY {order} key, sample_id) AS keeper
  FROM {members}
), side AS (
  SELECT a AS n, b AS other, score, span_a AS span FROM {matches} UNION ALL SELECT b, a, score, span_b FROM {matches}
), proof AS (
  SELECT m.n, {{'of': o.sample_id, 'kind': {kind}, 'score': e.score, 'span': e.span}} AS proof, e.score,
         row_number() OVER (PARTITION BY m.n ORDER BY e.other = m.keeper DESC, e.score DESC, o.sample_id) AS place
  FROM side e JOIN member m USING (n) JOIN member o ON o.n = e.other WHERE m.n <> m.keeper
), proofs AS (
  SELECT n, list(proof ORDER BY place) AS duplicates, max(score) AS score FROM proof WHERE place <= {evidence} GROUP BY n
)
SELECT m.sample_id, m."group", k.sample_id AS keeper, p.score, p.duplicates
FROM member m JOIN member k ON k.n = m.keeper LEFT JOIN proofs p ON p.n = m.n ORDER BY m.sample_id
"""


@dataclass
class DuplicateRule(Rule):
    """A rule that groups samples. All but one of each group, its keeper, fail it.

    What `prepare` finds lies in a Parquet file, by sample: ``sample_id``, ``group``, ``keeper`` (a sample_id), ``score`` and
    ``duplicates``.
    """

    reason: ClassVar[str] = ""

    _folder: Any = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def find(self, read: CellReader, folder: Path) -> Path:
        """Look through the cell and write what is found to a file in `folder`."""

    def prepare(self, read: CellReader) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"mm-{self.name}-")
        self._found = self.find(read, Path(self._folder.name))

    def groups(self) -> str:
        return f'SELECT sample_id, "group" FROM {stored(self._found)}'

    def judge(self, batch: pa.Table) -> Verdict:
        size, ids = batch.num_rows, batch["sample_id"]
        asked = pa.table({"row": pa.array(range(size), pa.int32()), "sample_id": ids})
        found = sql.fetch(_ROWS.format(found=stored(self._found)), batch=asked)
        passed = [True] * size
        value: list[Any] = [None] * size
        for row in found.drop_columns("duplicates").to_pylist():
            place = row["row"]
            passed[place], value[place] = row["keeper"] == ids[place].as_py(), self.value(row)
        # Most samples stand in no group: the row behind the last one stands for all of them.
        source = np.full(size, found.num_rows)
        source[found["row"].to_numpy()] = np.arange(found.num_rows)
        group, duplicates = (
            pa.concat_arrays(
                [*(chunk.cast(kind) for chunk in found[name].chunks), pa.array([none], kind)]
            ).take(pa.array(source))
            for name, kind, none in (("group", pa.string(), None), ("duplicates", pa.list_(DUPLICATE), []))
        )
        return Verdict(
            pa.array(passed, pa.bool_()), pa.array(value), self.reason, Evidence(group, duplicates)
        )

    def value(self, row: dict[str, Any]) -> Any:
        """What is recorded as measured of a grouped sample."""
        return None if row["score"] is None else round(row["score"], 4)


@dataclass
class NearDuplicateRule(DuplicateRule):
    """A rule for samples that show the same though their bytes differ; a subclass says which pairs are near.

    Groups are the connected components of all near pairs, named after their first member by key, so that a group keeps its
    name while that member stays. By default the first by key is kept.

    Attributes:
        extent: SQL over the columns that are not `compared`: how much of its content a sample holds, for ``keep: largest``.
        kind: of the evidence.
    """

    extent: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    keep: str = "first"

    def __post_init__(self) -> None:
        if self.keep not in ("first", "largest"):
            raise UserError(f"curation.rules.{self.name}.keep: {self.keep!r} is not first or largest")

    @abstractmethod
    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        """Pairs that are near each other, as rows of `MATCH`, each pair once.

        Args:
            read: streams chosen columns of all samples, and ``n``, their numbers from 0.
        """

    def find(self, read: CellReader, folder: Path) -> Path:
        samples, labels = numbered(read), np.zeros(0, np.int32)
        with pq.ParquetWriter(matches := folder / "matches.parquet", MATCH) as sink:
            for table in self.matches(samples):
                sink.write_table(table)
                labels = united(labels, table["a"].to_numpy(), table["b"].to_numpy())
        columns = [name for name in self.columns if name not in self.compared]
        members = sql.save(
            f"SELECT l.n, l.label, s.sample_id, s.key, {self.extent} AS extent FROM samples s JOIN labels l USING (n)",
            folder / "members.parquet", samples=samples(columns), labels=members_of(labels),
        )  # fmt: skip
        order = "extent DESC," if self.keep == "largest" else ""
        statement = _FOUND.format(
            members=stored(members),
            matches=stored(matches),
            order=order,
            kind=sql.literal(self.kind),
            evidence=_EVIDENCE,
        )
        return sql.save(statement, folder / "found.parquet")


def matched(pairs: pa.RecordBatch, score: np.ndarray[Any, Any], near: np.ndarray[Any, Any]) -> pa.Table:
    """The pairs that are near, as a whole, as rows of `MATCH`.

    Args:
        pairs: ``a`` and ``b``.
        score, near: float64 and bool [pairs].
    """
    chosen = np.flatnonzero(near)
    whole = pa.nulls(len(chosen), pa.string())
    return pa.table(
        [pairs["a"].take(chosen), pairs["b"].take(chosen), score[chosen], whole, whole], schema=MATCH
    )


def members_of(labels: np.ndarray[Any, Any]) -> pa.Table:
    """Number and component of each sample that is not alone."""
    chosen = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1) if len(labels) else labels
    return pa.table([chosen.astype(np.int32), labels[chosen]], schema=_LABEL)
