"""Rule `near_duplicate_text`: MinHash over character shingles (Broder, 1997)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.duplicates import NearDuplicateRule, match_rows
from mm_embed_kernels.similarity import lsh, shingles
from mm_embed_kernels.sql import CellReader

# Different texts that a shingle must stand in to be common; similarity beside what is common, as a share of
# `min_similarity`: messages over one footer have less than a tenth, edited copies of one message over half.
_LEAST_TEXTS, _REST = 5, 0.5


@dataclass
class NearDuplicateText(NearDuplicateRule):
    """Almost the same text as another sample of the cell, by Jaccard similarity of character shingles.

    Candidates by MinHash and banding (Broder, 1997), compared by their sketches of shingles; see `shingles`.
    A text of fewer than `min_shingles` distinct ones, such as a greeting or a ruled line, says too little to
    be like another one.

    What many different texts of the cell have in common, such as the footer of mails, a licence, or the
    template of pages, says nothing about two of them: texts that have `min_shingles` beside it must be alike
    in these, too, at least half as much. Common is what as many texts have as the square root of their
    number, and five at least: fewer may be versions of one text. The whole cell is counted in each run, so
    that the result is that of computing it anew, whatever came first; more texts of a template may part
    earlier pairs.
    """

    name = "near_duplicate_text"
    version: ClassVar[str] = "3"
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
        count, common = 0, np.zeros(0, np.uint32)

        def entries() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for batch in read(["minhash"]):
                signed = batch.filter(batch["minhash"].is_valid())
                count += signed.num_rows
                yield lsh.entries(
                    signed["n"].to_numpy(), lsh.buckets(shingles.minhashes(signed["minhash"]), rows)
                )

        def survey(batches: Iterator[pa.RecordBatch]) -> None:
            nonlocal common
            least = max(_LEAST_TEXTS, math.isqrt(count))
            common = shingles.common_hashes((batch["shingles"] for batch in batches), least)

        for pairs in lsh.candidate_pairs(entries(), read, ["shingles"], survey=survey):
            found = shingles.agreement(pairs["x_shingles"], pairs["y_shingles"], common)
            # What is left of versions of one text, beside what they share, may be too little to compare.
            alike = (found.said < self.min_shingles) | (found.rest >= _REST * self.min_similarity)
            enough = _shingle_counts(pairs) >= self.min_shingles
            yield match_rows(pairs, found.whole, enough & alike & (found.whole >= self.min_similarity))


def _shingle_counts(pairs: pa.RecordBatch) -> np.ndarray[Any, Any]:
    """Return the distinct shingles of the poorer text of each pair, up to the size of a sketch."""
    sizes = [pc.binary_length(pairs[name]).to_numpy() // 4 for name in ("x_shingles", "y_shingles")]
    return np.asarray(np.minimum(*sizes))
