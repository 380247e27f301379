"""Base classes of rules that compare samples: groups, keepers and evidence, in files instead of memory."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator
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
from mm_embed_kernels.similarity.connected_components import merge_components
from mm_embed_kernels.sql import CellReader, parquet_table, rank_rows

# A near-duplicate pair by the samples' numbers, a < b: its score, and the span of each sample that is shared,
# null for all.
MATCH = pa.schema(
    [
        ("a", pa.int32()),
        ("b", pa.int32()),
        ("score", pa.float64()),
        ("span_a", pa.string()),
        ("span_b", pa.string()),
    ]
)
# Pieces of evidence recorded for a sample: the one against the group's keeper first, then the strongest.
_EVIDENCE = 4
_LABEL = pa.schema([("n", pa.int32()), ("label", pa.int32())])
_ROWS = """
SELECT b.row, f."group", f.keeper, f.score, coalesce(f.duplicates, []) AS duplicates
FROM batch b JOIN {duplicates} f USING (sample_id)
"""
_DUPLICATES = """
WITH member AS (
  SELECT n, sample_id,
         'near-' || first_value(sample_id) OVER (PARTITION BY label ORDER BY key, sample_id) AS "group",
         first_value(n) OVER (PARTITION BY label ORDER BY {order} key, sample_id) AS keeper
  FROM {members}
), side AS (
  SELECT a AS n, b AS other, score, span_a AS span FROM {matches}
  UNION ALL SELECT b, a, score, span_b FROM {matches}
), proof AS (
  SELECT m.n, {{'of': o.sample_id, 'kind': {kind}, 'score': e.score, 'span': e.span}} AS proof, e.score,
         row_number() OVER (
           PARTITION BY m.n ORDER BY e.other = m.keeper DESC, e.score DESC, o.sample_id
         ) AS rank
  FROM side e JOIN member m USING (n) JOIN member o ON o.n = e.other WHERE m.n <> m.keeper
), proofs AS (
  SELECT n, list(proof ORDER BY rank) AS duplicates, max(score) AS score
  FROM proof WHERE rank <= {evidence} GROUP BY n
)
SELECT m.sample_id, m."group", k.sample_id AS keeper, p.score, p.duplicates
FROM member m JOIN member k ON k.n = m.keeper LEFT JOIN proofs p ON p.n = m.n ORDER BY m.sample_id
"""


@dataclass
class DuplicateRule(Rule):
    """A rule that groups samples; all samples of a group but its keeper fail.

    `prepare` writes a Parquet file with one row per grouped sample: ``sample_id``, ``group``, ``keeper`` (a
    sample_id), ``score`` and ``duplicates``.
    """

    reason: ClassVar[str] = ""

    _folder: Any = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def find(self, read: CellReader, folder: Path) -> Path:
        """Detect the duplicates of the cell and write them to a file in `folder`; return its path."""

    def prepare(self, read: CellReader) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"mm-{self.name}-")
        self._file = self.find(read, Path(self._folder.name))

    def groups(self) -> str:
        return f'SELECT sample_id, "group" FROM {parquet_table(self._file)}'

    def judge(self, batch: pa.Table) -> Verdict:
        size, ids = batch.num_rows, batch["sample_id"]
        rows = pa.table({"row": pa.array(range(size), pa.int32()), "sample_id": ids})
        grouped = sql.fetch(_ROWS.format(duplicates=parquet_table(self._file)), batch=rows)
        passed = [True] * size
        value: list[Any] = [None] * size
        for row in grouped.drop_columns("duplicates").to_pylist():
            i = row["row"]
            passed[i], value[i] = row["keeper"] == ids[i].as_py(), self.value(row)
        # Most samples are in no group: one row appended behind the last serves all of them.
        source = np.full(size, grouped.num_rows)
        source[grouped["row"].to_numpy()] = np.arange(grouped.num_rows)
        group, duplicates = (
            pa.concat_arrays(
                [*(chunk.cast(kind) for chunk in grouped[name].chunks), pa.array([none], kind)]
            ).take(pa.array(source))
            for name, kind, none in (("group", pa.string(), None), ("duplicates", pa.list_(DUPLICATE), []))
        )
        return Verdict(
            pa.array(passed, pa.bool_()), pa.array(value), self.reason, Evidence(group, duplicates)
        )

    def value(self, row: dict[str, Any]) -> Any:
        """Return the value that is recorded for a grouped sample."""
        return None if row["score"] is None else round(row["score"], 4)


@dataclass
class NearDuplicateRule(DuplicateRule):
    """A rule for samples with the same content in different bytes; a subclass decides which pairs are near.

    Groups are the connected components of all near pairs. A group is named after its first member by key, so
    that its name is stable while that member exists. By default the keeper is the first by key.

    Attributes:
        extent: SQL over the columns that are not `compared`: amount of content of a sample, for ``keep:
            largest``.
        kind: kind of the evidence.
        keep: ``first`` by key, or ``largest`` by `extent`.
    """

    extent: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    keep: str = "first"

    def __post_init__(self) -> None:
        if self.keep not in ("first", "largest"):
            raise UserError(f"curation.rules.{self.name}.keep: {self.keep!r} is not first or largest")

    @abstractmethod
    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        """Stream the near pairs as rows of `MATCH`, each pair once.

        Args:
            read: streams chosen columns of all samples and ``n``, their numbers from 0.
        """

    def find(self, read: CellReader, folder: Path) -> Path:
        samples = rank_rows(read, "sample_id")
        matches, labels = save_matches(self.matches(samples), folder)
        columns = [name for name in self.columns if name not in self.compared]
        members = sql.save(
            f"SELECT l.n, l.label, s.sample_id, s.key, {self.extent} AS extent "
            "FROM samples s JOIN labels l USING (n)",
            folder / "members.parquet",
            samples=samples(columns),
            labels=members_of(labels),
        )
        order = "extent DESC," if self.keep == "largest" else ""
        statement = _DUPLICATES.format(
            members=parquet_table(members),
            matches=parquet_table(matches),
            order=order,
            kind=sql.literal(self.kind),
            evidence=_EVIDENCE,
        )
        return sql.save(statement, folder / "duplicates.parquet")


def save_matches(matches: Iterable[pa.Table], folder: Path) -> tuple[Path, np.ndarray[Any, Any]]:
    """Write rows of `MATCH` to a Parquet file and compute the connected components of their pairs.

    Returns:
        The file's path and the component of each sample by number, int32 [samples up to the last one in a
        pair].
    """
    labels = np.zeros(0, np.int32)
    with pq.ParquetWriter(path := folder / "matches.parquet", MATCH) as sink:
        for table in matches:
            sink.write_table(table)
            labels = merge_components(labels, table["a"].to_numpy(), table["b"].to_numpy())
    return path, labels


def match_rows(pairs: pa.RecordBatch, score: np.ndarray[Any, Any], near: np.ndarray[Any, Any]) -> pa.Table:
    """Return the near pairs, whose samples match as a whole, as rows of `MATCH`.

    Args:
        pairs: ``a`` and ``b``.
        score: float64 [pairs].
        near: bool [pairs].
    """
    chosen = np.flatnonzero(near)
    whole = pa.nulls(len(chosen), pa.string())
    return pa.table(
        [pairs["a"].take(chosen), pairs["b"].take(chosen), score[chosen], whole, whole], schema=MATCH
    )


def members_of(labels: np.ndarray[Any, Any]) -> pa.Table:
    """Return number ``n`` and component ``label`` of each sample whose component has other members."""
    chosen = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1) if len(labels) else labels
    return pa.table([chosen.astype(np.int32), labels[chosen]], schema=_LABEL)
