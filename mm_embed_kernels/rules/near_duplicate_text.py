from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels.rules.duplicates import NearDuplicateRule, matched
from mm_embed_kernels.similarity import lsh, shingles
from mm_embed_kernels.sql import CellReader


@dataclass
class NearDuplicateText(NearDuplicateRule):
    """Almost the same text as another sample of the cell: the Jaccard similarity of their five-character shingles.

    Candidates by MinHash and banding (Broder 1997), held against each other shingle by shingle; see `shingles`.
    """

    name = "near_duplicate_text"
    modalities = ("text",)
    columns = ("sample_id", "key", "characters", "minhash", "shingles")
    compared = ("minhash", "shingles")
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
                yield lsh.entries(
                    known["n"].to_numpy(), lsh.buckets(shingles.minhashes(known["minhash"]), rows)
                )

        for pairs in lsh.compared(entries(), read, ["shingles"]):
            score = shingles.resemblance(pairs["x_shingles"], pairs["y_shingles"])
            yield matched(pairs, score, score >= self.min_similarity)
