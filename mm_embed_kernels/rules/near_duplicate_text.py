from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mm_embed_kernels import lsh, relational, shingles
from mm_embed_kernels.relational import stored
from mm_embed_kernels.rules.base import CellReader
from mm_embed_kernels.rules.duplicates import MATCH, NearDuplicateRule

# Few samples have a candidate: what is held against each other is read for them alone.
_ASKED = "SELECT DISTINCT a, b FROM pairs"
_CHOSEN = "SELECT n, shingles FROM samples WHERE n IN (SELECT a FROM {pairs} UNION SELECT b FROM {pairs})"
_SKETCHES = """
SELECT p.a, p.b, x.shingles AS x, y.shingles AS y FROM {pairs} p JOIN {chosen} x ON x.n = p.a JOIN {chosen} y ON y.n = p.b
"""


@dataclass
class NearDuplicateText(NearDuplicateRule):
    """Almost the same text as another sample of the cell: the Jaccard similarity of their five-character shingles.

    Candidates by MinHash and banding (Broder 1997), held against each other shingle by shingle; see `shingles`.
    """

    name = "near_duplicate_text"
    modalities = ("text",)
    columns = ("sample_id", "key", "characters", "minhash", "shingles")
    signature = ("minhash", "shingles")
    extent = "characters"
    kind = "near_text"
    reason = "is almost the same text as another sample"
    cost = 8

    min_similarity: float = 0.8

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        rows = lsh.band_rows(self.min_similarity, shingles.PERMUTATIONS)

        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["minhash"]):
                known = batch.filter(batch["minhash"].is_valid())
                yield lsh.entries(known["n"].to_numpy(), lsh.buckets(shingles.minhashes(known["minhash"]), rows))

        with tempfile.TemporaryDirectory(prefix="mm-text-") as folder:
            pairs = stored(relational.save(_ASKED, Path(folder) / "pairs.parquet", pairs=lsh.candidates(entries())))
            samples = read(["shingles"])
            chosen = stored(relational.save(_CHOSEN.format(pairs=pairs), Path(folder) / "chosen.parquet", samples=samples))
            with relational.query(_SKETCHES.format(pairs=pairs, chosen=chosen)) as found:
                for batch in found:
                    score = shingles.resemblance(batch["x"], batch["y"])
                    near = np.flatnonzero(score >= self.min_similarity)
                    whole = pa.nulls(len(near), pa.string())
                    yield pa.table([batch["a"].take(near), batch["b"].take(near), score[near], whole, whole], schema=MATCH)
