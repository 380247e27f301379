from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.samples import DUPLICATE
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules.base import Action, Evidence, Rule, Verdict
from mm_embed_kernels.rules.duplicates import MATCH, NearDuplicateRule, members_of
from mm_embed_kernels.similarity.connected_components import united
from mm_embed_kernels.sql import CellReader, numbered, stored

_EVIDENCE = 4
_COPIES = """
SELECT own.sample_id, o.sample_id AS "of", 'exact in ' || o.origin AS kind, 1.0::DOUBLE AS score, NULL::VARCHAR AS span
FROM own JOIN others o USING (content_hash)
"""
# Whoever is near a sample of this cell that is near one of another dataset has seen it, too: a bucket of many copies
# compares each of them with few others.
_NEAR = """
WITH side AS (SELECT a AS n, b AS other, score, span_a AS span FROM {matches} UNION ALL SELECT b, a, score, span_b FROM {matches}),
direct AS (
  SELECT m.sample_id, o.sample_id AS "of", {kind} || ' in ' || o.origin AS kind, e.score, e.span
  FROM side e JOIN {members} m ON m.n = e.n JOIN {members} o ON o.n = e.other WHERE m.origin = '' AND o.origin <> ''
), first AS (
  SELECT label, arg_min({{'of': sample_id, 'origin': origin}}, (origin, key, sample_id)) AS first
  FROM {members} WHERE origin <> '' GROUP BY label
)
SELECT * FROM direct UNION ALL
SELECT m.sample_id, f.first.of, {kind} || ' in ' || f.first.origin || ', through others', NULL, NULL
FROM {members} m JOIN first f USING (label) WHERE m.origin = '' AND m.sample_id NOT IN (SELECT sample_id FROM direct)
"""
_FOUND = """
SELECT sample_id, list(proof ORDER BY place) AS duplicates FROM (
  SELECT sample_id, struct_pack("of" := "of", kind := kind, score := score, span := span) AS proof,
         row_number() OVER (PARTITION BY sample_id ORDER BY score DESC NULLS LAST, kind, "of") AS place
  FROM ({proofs})
) WHERE place <= {evidence} GROUP BY sample_id ORDER BY sample_id
"""
_ROWS = "SELECT b.row, f.duplicates FROM batch b JOIN {found} f USING (sample_id)"


@dataclass
class Contaminated(Rule):
    """Shown by another dataset, too: one that a model is evaluated with, say, so that it must not be trained on it.

    The same bytes, and what the cell's near-duplicate rule takes for near with the settings that it has; where that rule is
    off, the bytes alone. Off by default, since it needs to be told which datasets. Cf. Lee et al., "Deduplicating training
    data makes language models better" (2022), section 6.

    Attributes:
        against: ``DATASET@VERSION`` of what has been validated, or several, separated by commas.
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
                "curation.rules.contaminated: `against` says what to compare with, and `action` is off: give it drop or flag"
            )
        if self.action != "off" and not self.datasets:
            raise UserError(
                "curation.rules.contaminated: `against` has to name a dataset version, such as bench@v1"
            )

    @property
    def datasets(self) -> list[str]:
        """The dataset versions to compare with."""
        return [name.strip() for name in self.against.split(",") if name.strip()]

    def look_into(self, others: Mapping[str, CellReader], near: NearDuplicateRule | None) -> None:
        """Say where the samples of the other datasets are read, and by which rule two are near; before `prepare`."""
        self._others, self._near = others, near

    def prepare(self, read: CellReader) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"mm-{self.name}-")
        folder = Path(self._folder.name)
        proofs = [
            stored(
                sql.save(
                    _COPIES,
                    folder / "copies.parquet",
                    own=read(["sample_id", "content_hash"]),
                    others=self._rows(),
                )
            )
        ]
        if self._near is not None and self._others:
            proofs.append(stored(self._nearby(self._near, read, folder)))
        statement = _FOUND.format(
            proofs=" UNION ALL ".join(f"FROM {path}" for path in proofs), evidence=_EVIDENCE
        )
        self._found = sql.save(statement, folder / "found.parquet")

    def _rows(self) -> pa.RecordBatchReader:
        """``sample_id``, ``content_hash`` and ``origin`` of all samples of the other datasets."""
        schema = pa.schema([(name, pa.string()) for name in ("sample_id", "content_hash", "origin")])

        def batches() -> Iterator[pa.RecordBatch]:
            for origin, other in self._others.items():
                for batch in other(["sample_id", "content_hash"]):
                    yield pa.record_batch(
                        [*batch.columns, pa.array([origin] * batch.num_rows, pa.string())], schema=schema
                    )

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _nearby(self, near: NearDuplicateRule, read: CellReader, folder: Path) -> Path:
        """What is near, in a file with the columns of `_COPIES`."""
        samples, labels = numbered(self._together(read)), np.zeros(0, np.int32)
        with pq.ParquetWriter(matches := folder / "matches.parquet", MATCH) as sink:
            for table in near.matches(samples):
                sink.write_table(table)
                labels = united(labels, table["a"].to_numpy(), table["b"].to_numpy())
        members = sql.save(
            "SELECT l.n, l.label, s.sample_id, s.key, s.origin FROM samples s JOIN labels l USING (n)",
            folder / "members.parquet", samples=samples(["sample_id", "key", "origin"]), labels=members_of(labels),
        )  # fmt: skip
        statement = _NEAR.format(
            matches=stored(matches), members=stored(members), kind=sql.literal(near.kind)
        )
        return sql.save(statement, folder / "near.parquet")

    def _together(self, read: CellReader) -> CellReader:
        """The cell's samples, then those of the other datasets; ``origin`` is "" for the first."""

        def together(columns: list[str]) -> pa.RecordBatchReader:
            wanted = [name for name in columns if name != "origin"]
            own = read(wanted)
            kinds = {**{item.name: item.type for item in own.schema}, "origin": pa.string()}
            schema = pa.schema([(name, kinds[name]) for name in columns])

            def batches() -> Iterator[pa.RecordBatch]:
                for origin, reader in [
                    ("", own),
                    *((origin, other(wanted)) for origin, other in self._others.items()),
                ]:
                    for batch in reader:
                        table = pa.Table.from_batches([batch]).append_column(
                            "origin", pa.array([origin] * batch.num_rows, pa.string())
                        )
                        yield from table.select(columns).cast(schema).to_batches()

            return pa.RecordBatchReader.from_batches(schema, batches())

        return together

    def judge(self, batch: pa.Table) -> Verdict:
        size = batch.num_rows
        asked = pa.table({"row": pa.array(range(size), pa.int32()), "sample_id": batch["sample_id"]})
        passed, value = [True] * size, list[str | None]([None] * size)
        duplicates: list[list[dict[str, Any]]] = [[] for _ in range(size)]
        for row in sql.fetch(_ROWS.format(found=stored(self._found)), batch=asked).to_pylist():
            place = row["row"]
            passed[place], duplicates[place] = False, row["duplicates"]
            value[place] = f"{row['duplicates'][0]['kind']}: {row['duplicates'][0]['of']}"
        evidence = Evidence(pa.nulls(size, pa.string()), pa.array(duplicates, pa.list_(DUPLICATE)))
        return Verdict(
            pa.array(passed, pa.bool_()),
            pa.array(value, pa.string()),
            "is in a dataset that it must not be in",
            evidence,
        )
