"""Rule `near_duplicate_text`: MinHash over character shingles (Broder, 1997)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels.rules.duplicates import NearDuplicateRule, match_rows
from mm_embed_kernels.similarity import lsh, shingles
from mm_embed_kernels.sql import CellReader


@dataclass
class NearDuplicateText(NearDuplicateRule):
    """Almost the same text as another sample of the cell, by Jaccard similarity of character shingles.

    Candidates by MinHash and banding (Broder, 1997), compared by their sketches of shingles; see `shingles`.
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
                signed = batch.filter(batch["minhash"].is_valid())
                yield lsh.entries(
                    signed["n"].to_numpy(), lsh.buckets(shingles.minhashes(signed["minhash"]), rows)
                )

        for pairs in lsh.candidate_pairs(entries(), read, ["shingles"]):
            score = shingles.resemblance(pairs["x_shingles"], pairs["y_shingles"])
            yield match_rows(pairs, score, score >= self.min_similarity)
