"""Rule `near_duplicate_image`: hashes of thumbnails in four turns, and what the thumbnails differ in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules.duplicates import NearDuplicateRule, match_rows
from mm_embed_kernels.similarity import lsh, thumbnails
from mm_embed_kernels.sql import CellReader

_MAX_DISTANCE = 7
# Turns whose hashes are looked up: two pictures in any quarter turn have one of these hashes in common.
_LOOKED_UP = 3
# A thumbnail whose cells vary less is blank, and is like nothing.
_MIN_CONTENT = 4.0
# Below this variation, most of the picture is background: the rest has to agree better.
_FULL_CONTENT = 40.0
# A cell differs by up to this share of the variation, and this much, at the edges of a picture at a third of
# its size; by more, where a detail is another one.
_LARGEST_SHARE, _LARGEST, _LARGEST_TURNED, _LARGEST_BLANK = 0.9, 80.0, 64.0, 24.0
# Contrast that a copy gains or loses.
_GAIN = 1.67
# Flags and icons often are another one in a quarter turn, in other colors.
_TURNED_COLOR = 10.0


@dataclass
class NearDuplicateImage(NearDuplicateRule):
    """A picture that is another sample of the cell in another size, format or brightness, or turned.

    Candidates by the Hamming distance of difference hashes (Krawetz, "Kind of like that", 2013) of thumbnails
    in four quarter turns; verified by what the thumbnails differ in, as a share of their content (see
    `thumbnails`). A mirrored picture is another picture. `benchmarks/look_alikes.py` measures precision and
    recall.

    Attributes:
        max_distance: bits of 64 in which hashes of rows or of columns differ.
        max_difference: difference of the thumbnails as a share of their content.
        max_color_distance: difference of the mean of a channel, 0 to 255.
    """

    name = "near_duplicate_image"
    version: ClassVar[str] = "2"
    modalities = ("image",)
    columns = ("sample_id", "key", "width", "height", "thumbnail")
    compared = ("thumbnail",)
    extent = "width::BIGINT * height"
    kind = "near_image"
    reason = "shows the same picture as another sample"
    cost = 8

    max_distance: int = 5
    max_difference: float = 0.03
    max_color_distance: float = 32.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_distance not in range(_MAX_DISTANCE + 1):
            raise UserError(
                f"curation.rules.{self.name}.max_distance: {self.max_distance} is not a whole number "
                f"from 0 to {_MAX_DISTANCE}"
            )
        self.max_distance = int(self.max_distance)

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["thumbnail"]):
                pictures = batch.filter(batch["thumbnail"].is_valid())
                if not pictures.num_rows:
                    continue
                hashed = thumbnails.hashes(thumbnails.unpack(pictures["thumbnail"].to_pylist()))
                buckets = lsh.byte_buckets(hashed[:, :_LOOKED_UP].reshape(-1), self.max_distance)
                yield lsh.sparse_entries(pictures["n"].to_numpy(), buckets.reshape(pictures.num_rows, -1))

        for pairs in lsh.candidate_pairs(entries(), read, ["thumbnail"]):
            left, right = (
                thumbnails.unpack(pairs[name].to_pylist()) for name in ("x_thumbnail", "y_thumbnail")
            )
            turn, distance = thumbnails.turn_of(thumbnails.hashes(left), thumbnails.hashes(right))
            close = np.flatnonzero(distance <= self.max_distance)
            score, near = self._compare(left[close], right[close], turn[close])
            yield match_rows(pairs.take(pa.array(close)), score, near)

    def _compare(
        self, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], turn: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the scores of pairs of thumbnails, the left ones turned, and whether the pairs are near."""
        found = thumbnails.compare(left, right, turn)
        limit = self.max_difference * np.minimum(1, found.content / _FULL_CONTENT)
        most = np.where(turn == 0, _LARGEST, _LARGEST_TURNED)
        largest = np.clip(_LARGEST_SHARE * found.content, _LARGEST_BLANK, most)
        color = np.where(turn == 0, self.max_color_distance, min(_TURNED_COLOR, self.max_color_distance))
        near = (
            (found.content >= _MIN_CONTENT)
            & (found.share <= limit)
            & (found.largest <= largest)
            & (found.color <= color)
            & (np.abs(np.log(np.maximum(found.gain, 1e-6))) <= np.log(_GAIN))
        )
        return 1 - found.share.astype(np.float64), near
