"""Loaders made of training sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mm_resources.catalog import Catalog
from mm_resources.retrieval.batches import BatchMaker
from mm_resources.retrieval.epoch_order import EpochOrder
from mm_resources.retrieval.loader import Loader
from mm_resources.retrieval.loader_arguments import LoaderArguments
from mm_resources.retrieval.manifests import Manifest, Rows
from mm_resources.retrieval.media_decoding import MediaDecoder
from mm_resources.retrieval.mixture_rows import MixtureRows


def make_loader(catalog: Catalog, rows: Rows, manifest: Manifest, given: LoaderArguments) -> Loader:
    """Return the loader of a training set.

    Raises:
        UserError: for media that cannot be decoded as asked, and where the rows give none to some rank.
    """
    decoder = (
        MediaDecoder(given.decode, rows.media_kinds(), given.sandbox) if given.decode is not None else None
    )
    media = given.media or decoder is not None
    reader: Any
    draw: Callable[[int], Any] | None = None
    if isinstance(rows, MixtureRows):
        reader, draw, count = rows.all_rows(media), rows.draw, rows.epoch_rows
    else:
        reader = rows.reader(media)
        count = len(reader)
    if decoder is not None:
        reader = reader.extend(["text"])
    maker = BatchMaker(
        catalog.blobs if media else None,
        rows.integers_with_nulls(),
        manifest.get("classes") or (),
        decoder,
        given.transform,
        given.collate,
    )
    order = EpochOrder(count, given.shuffle, given.seed, draw)
    return Loader(
        reader,
        order,
        given.batch_size,
        given.workers,
        given.rank,
        given.world_size,
        given.drop_last,
        maker,
        manifest["digest"],
    )
