"""Rule `near_duplicate_text`: MinHash over character shingles (Broder, 1997)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.duplicates import NearDuplicateRule, match_rows
from mm_embed_kernels.similarity import lsh, shingles
from mm_embed_kernels.sql import CellReader


@dataclass
class NearDuplicateText(NearDuplicateRule):
    """Almost the same text as another sample of the cell, by Jaccard similarity of character shingles.

    Candidates by MinHash and banding (Broder, 1997), compared by their sketches of shingles; see `shingles`.
    A text of fewer than `min_shingles` distinct ones, such as a greeting or a ruled line, says too little to
    be like another one.
    """

    name = "near_duplicate_text"
    version: ClassVar[str] = "2"
    modalities = ("text",)
    columns = ("sample_id", "key", "characters", "minhash", "shingles")
    compared = ("minhash", "shingles")
    extent = "characters"
    kind = "near_text"
    reason = "is almost the same text as another sample"
    cost = 8

    min_similarity: float = 0.8
    min_shingles: int = 16

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
            enough = _shingle_counts(pairs) >= self.min_shingles
            yield match_rows(pairs, score, enough & (score >= self.min_similarity))


def _shingle_counts(pairs: pa.RecordBatch) -> np.ndarray[Any, Any]:
    """Return the distinct shingles of the poorer text of each pair, up to the size of a sketch."""
    sizes = [pc.binary_length(pairs[name]).to_numpy() // 4 for name in ("x_shingles", "y_shingles")]
    return np.asarray(np.minimum(*sizes))
