"""Pixeltable: a table with a computed column from a batched UDF; Pixeltable starts a PostgreSQL server."""

from __future__ import annotations

import os

import pixeltable as pxt
import pyarrow.parquet as pq
from pixeltable_udfs import MODEL, embed_images, embed_texts
from work import Work, main, pngs


def text(work: Work) -> int:
    os.environ[MODEL] = work.model
    table = pxt.create_table("texts", {"id": pxt.Int, "text": pxt.String}, if_exists="replace")
    table.add_computed_column(vector=embed_texts(table.text))
    table.insert(pq.read_table(work.files).to_pylist())
    return int(table.count())


def image(work: Work) -> int:
    os.environ[MODEL] = work.model
    table = pxt.create_table("pictures", {"picture": pxt.Image}, if_exists="replace")
    table.add_computed_column(vector=embed_images(table.picture))
    table.insert({"picture": path} for path in pngs(work.files))
    return int(table.count())


if __name__ == "__main__":
    main(text, image)
