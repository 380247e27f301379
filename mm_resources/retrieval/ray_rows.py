"""Rows of training sets read on Ray's workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm_embed_kernels.extras import explain_missing
from mm_resources.retrieval.mixture_rows import DrawnReader
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader, RowReader
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import ray.data


def read_on_ray(rows: RowReader | DrawnReader, media: bool, blocks: int) -> ray.data.Dataset:
    """Return a Ray dataset of Arrow blocks; the arguments are those of `TrainingSet.to_ray`."""
    with explain_missing("TrainingSet.to_ray"):
        import ray.data

    numbers = ray.data.range(
        len(rows), override_num_blocks=blocks or -(-len(rows) // lance_datasets.READ_ROWS) or 1
    )
    # Without media a whole block is read at once: its rows are neighbours in the set.
    return numbers.map_batches(
        BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
    )
