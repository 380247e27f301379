"""Rows of training sets read on Ray's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_embed_kernels.extras import explain_missing
from mm_resources.retrieval.mixture_rows import DrawnReader
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader, RowReader
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import ray.data


# Rows of a block of a mixture, whose blocks are what Ray interleaves.
_MIXED_ROWS = 1_024


def read_on_ray(parts: Sequence[RowReader | DrawnReader], media: bool, blocks: int) -> ray.data.Dataset:
    """Return a Ray dataset of Arrow blocks; of several parts, mixed by Ray in proportion to their rows.

    The other arguments are those of `TrainingSet.to_ray`.
    """
    if len(parts) == 1:
        return _read_part(parts[0], media, blocks or -(-len(parts[0]) // lance_datasets.READ_ROWS))
    total = sum(map(len, parts))
    made = [
        _read_part(each, media, -(-blocks * len(each) // total) or -(-len(each) // _MIXED_ROWS))
        for each in parts
    ]
    # All rows come: a part that ends before the others drops out.
    return made[0].mix(*made[1:], weights=[len(each) / total for each in parts])


def _read_part(rows: RowReader | DrawnReader, media: bool, blocks: int) -> ray.data.Dataset:
    with explain_missing("TrainingSet.to_ray"):
        import ray.data

    numbers = ray.data.range(len(rows), override_num_blocks=blocks or 1)
    # Without media a whole block is read at once: its rows are neighbours in the set.
    return numbers.map_batches(
        BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
    )
