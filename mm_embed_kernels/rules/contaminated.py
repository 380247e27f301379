"""Rule `contaminated`: samples that also occur in other datasets (cf. Lee et al., 2022, section 6)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.samples import DUPLICATE
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules.base import Action, Evidence, Rule, Verdict
from mm_embed_kernels.rules.duplicates import NearDuplicateRule, members_of, save_matches
from mm_embed_kernels.sql import CellReader, parquet_table, rank_rows

_EVIDENCE = 4
_COPIES = """
SELECT own.sample_id, o.sample_id AS "of", 'exact in ' || o.origin AS kind,
       1.0::DOUBLE AS score, NULL::VARCHAR AS span
FROM own JOIN others o USING (content_hash)
"""
# A sample near another one of this cell that is near a foreign one is contaminated as well: in a bucket of
# many copies each is compared with only a few others.
_NEAR = """
WITH side AS (
  SELECT a AS n, b AS other, score, span_a AS span FROM {matches}
  UNION ALL SELECT b, a, score, span_b FROM {matches}
), direct AS (
  SELECT m.sample_id, o.sample_id AS "of", {kind} || ' in ' || o.origin AS kind, e.score, e.span
  FROM side e JOIN {members} m ON m.n = e.n JOIN {members} o ON o.n = e.other
  WHERE m.origin = '' AND o.origin <> ''
), first AS (
  SELECT label, arg_min({{'of': sample_id, 'origin': origin}}, (origin, key, sample_id)) AS first
  FROM {members} WHERE origin <> '' GROUP BY label
)
SELECT * FROM direct UNION ALL
SELECT m.sample_id, f.first.of, {kind} || ' in ' || f.first.origin || ', through others', NULL, NULL
FROM {members} m JOIN first f USING (label)
WHERE m.origin = '' AND m.sample_id NOT IN (SELECT sample_id FROM direct)
"""
_DUPLICATES = """
SELECT sample_id, list(proof ORDER BY rank) AS duplicates FROM (
  SELECT sample_id, struct_pack("of" := "of", kind := kind, score := score, span := span) AS proof,
         row_number() OVER (PARTITION BY sample_id ORDER BY score DESC NULLS LAST, kind, "of") AS rank
  FROM ({proofs})
) WHERE rank <= {evidence} GROUP BY sample_id ORDER BY sample_id
"""
_ROWS = "SELECT b.row, f.duplicates FROM batch b JOIN {duplicates} f USING (sample_id)"


@dataclass
class Contaminated(Rule):
    """A sample that also occurs in another dataset, for example in one that models are evaluated with.

    Compares bytes, and content by the cell's near-duplicate rule with its settings; bytes alone where that
    rule is off. Off by default, since the datasets to compare with must be named. Cf. Lee et al.,
    "Deduplicating training data makes language models better" (2022), section 6.

    Attributes:
        against: ``DATASET@VERSION`` of a validated dataset, or several, separated by commas.
    """

    name = "contaminated"
    columns = ("sample_id", "key", "content_hash")
    cost = 9

    action: Action = "off"
    against: str = ""

    _others: Mapping[str, CellReader] = field(default_factory=dict, init=False, repr=False, compare=False)
    _near: NearDuplicateRule | None = field(default=None, init=False, repr=False, compare=False)
    _folder: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.against and self.action == "off":
            raise UserError(
                "curation.rules.contaminated: `against` names datasets to compare with, but `action` is off; "
                "set it to drop or flag"
            )
        if self.action != "off" and not self.datasets:
            raise UserError(
                "curation.rules.contaminated: `against` must name a dataset version, such as bench@v1"
            )

    @property
    def datasets(self) -> list[str]:
        """Dataset versions to compare with."""
        return [name.strip() for name in self.against.split(",") if name.strip()]

    def compare_with(self, others: Mapping[str, CellReader], near: NearDuplicateRule | None) -> None:
        """Set the readers of the other datasets and the near-duplicate rule, before `prepare`.

        Args:
            others: dataset version -> reader of its samples.
            near: rule that decides which samples are near, or None to compare bytes alone.
        """
        self._others, self._near = others, near

    def prepare(self, read: CellReader) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"mm-{self.name}-")
        folder = Path(self._folder.name)
        proofs = [
            parquet_table(
                sql.save(
                    _COPIES,
                    folder / "copies.parquet",
                    own=read(["sample_id", "content_hash"]),
                    others=self._other_samples(),
                )
            )
        ]
        if self._near is not None and self._others:
            proofs.append(parquet_table(self._save_near(self._near, read, folder)))
        statement = _DUPLICATES.format(
            proofs=" UNION ALL ".join(f"FROM {path}" for path in proofs), evidence=_EVIDENCE
        )
        self._file = sql.save(statement, folder / "duplicates.parquet")

    def _other_samples(self) -> pa.RecordBatchReader:
        """Stream ``sample_id``, ``content_hash`` and ``origin`` of all samples of the other datasets."""
        schema = pa.schema([(name, pa.string()) for name in ("sample_id", "content_hash", "origin")])

        def batches() -> Iterator[pa.RecordBatch]:
            for origin, other in self._others.items():
                for batch in other(["sample_id", "content_hash"]):
                    yield pa.record_batch(
                        [*batch.columns, pa.array([origin] * batch.num_rows, pa.string())], schema=schema
                    )

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _save_near(self, near: NearDuplicateRule, read: CellReader, folder: Path) -> Path:
        """Write the near-duplicates in other datasets to a file with the columns of `_COPIES`."""
        samples = rank_rows(self._joint_reader(read), "origin", "sample_id")
        matches, labels = save_matches(near.matches(samples), folder)
        members = sql.save(
            "SELECT l.n, l.label, s.sample_id, s.key, s.origin FROM samples s JOIN labels l USING (n)",
            folder / "members.parquet",
            samples=samples(["sample_id", "key", "origin"]),
            labels=members_of(labels),
        )
        statement = _NEAR.format(
            matches=parquet_table(matches), members=parquet_table(members), kind=sql.literal(near.kind)
        )
        return sql.save(statement, folder / "near.parquet")

    def _joint_reader(self, read: CellReader) -> CellReader:
        """Return a reader of the cell's samples followed by those of the other datasets.

        Its column ``origin`` is the dataset version, "" for the cell's own samples.
        """

        def read_all(columns: list[str]) -> pa.RecordBatchReader:
            stored_columns = [name for name in columns if name != "origin"]
            own = read(stored_columns)
            kinds = {**{item.name: item.type for item in own.schema}, "origin": pa.string()}
            schema = pa.schema([(name, kinds[name]) for name in columns])

            def batches() -> Iterator[pa.RecordBatch]:
                for origin, reader in [
                    ("", own),
                    *((origin, other(stored_columns)) for origin, other in self._others.items()),
                ]:
                    for batch in reader:
                        table = pa.Table.from_batches([batch]).append_column(
                            "origin", pa.array([origin] * batch.num_rows, pa.string())
                        )
                        yield from table.select(columns).cast(schema).to_batches()

            return pa.RecordBatchReader.from_batches(schema, batches())

        return read_all

    def judge(self, batch: pa.Table) -> Verdict:
        size = batch.num_rows
        rows = pa.table({"row": pa.array(range(size), pa.int32()), "sample_id": batch["sample_id"]})
        passed, value = [True] * size, list[str | None]([None] * size)
        duplicates: list[list[dict[str, Any]]] = [[] for _ in range(size)]
        for row in sql.fetch(_ROWS.format(duplicates=parquet_table(self._file)), batch=rows).to_pylist():
            i = row["row"]
            passed[i], duplicates[i] = False, row["duplicates"]
            value[i] = f"{row['duplicates'][0]['kind']}: {row['duplicates'][0]['of']}"
        evidence = Evidence(pa.nulls(size, pa.string()), pa.array(duplicates, pa.list_(DUPLICATE)))
        return Verdict(
            pa.array(passed, pa.bool_()),
            pa.array(value, pa.string()),
            "is in a dataset that it must not be in",
            evidence,
        )
