"""Samples of an export that were forgotten since, by the list of samples beside its shards."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.exports.folder import SAMPLES
from mm_resources.settings import absolute
from mm_resources.storage.store import Store


def forgotten_samples(catalog: Catalog, folder: str) -> list[dict[str, Any]]:
    """Return the rows of an export whose sample or content was forgotten: ids, file and receipt of each.

    Args:
        folder: of the export, or its URL.

    Raises:
        UserError: for a folder that is no export with a list of samples.
    """
    receipts = {name: receipt.number for receipt in catalog.receipts.all() for name in receipt.samples}
    contents = catalog.receipts.tombstones()
    found = []
    store = Store(absolute(folder).removeprefix("file://"))
    if store.entry(SAMPLES) is None:
        raise UserError(
            f"{folder} has no {SAMPLES}, by which its samples are found; is it an export of `mm export`?"
        )
    with store.reader(SAMPLES) as stream:
        for batch in pq.ParquetFile(stream).iter_batches():
            for row in batch.to_pylist():
                receipt = receipts.get(row["sample_id"]) or contents.get(row["content_hash"])
                if receipt:
                    found.append({**row, "receipt": receipt})
    return found
