"""DataChain: a model from `setup`, batches as groups of an aggregation, in one process.

DataChain reads the annotations of functions, so that this module does without `from __future__ import
annotations`.
"""

from collections.abc import Iterator

import datachain as dc
import pyarrow.parquet as pq
from work import IMAGE_BATCH, TEXT_BATCH, Images, Texts, Work, main


def embed_texts(id: list[int], text: list[str], model: list[Texts]) -> Iterator[tuple[int, list[float]]]:
    yield from zip(id, model[0](text).tolist(), strict=True)


def embed_images(file: list[dc.ImageFile], model: list[Images]) -> Iterator[tuple[str, list[float]]]:
    pictures = [each.read().convert("RGB") for each in file]
    yield from zip([each.path for each in file], model[0](pictures).tolist(), strict=True)


def text(work: Work) -> int:
    texts = dc.read_parquet(work.files).settings(sys=True).mutate(part=dc.C("sys.id") // TEXT_BATCH)
    texts = texts.settings(sys=False).setup(model=lambda: Texts(work.model))
    return _store(
        texts.agg(embed_texts, partition_by="part", output={"key": int, "vector": list[float]}), work
    )


def image(work: Work) -> int:
    files = (
        dc.read_storage(f"{work.files}/*.png", type="image")
        .settings(sys=True)
        .mutate(part=dc.C("sys.id") // IMAGE_BATCH)
    )
    files = files.settings(sys=False).setup(model=lambda: Images(work.model))
    return _store(
        files.agg(embed_images, partition_by="part", output={"key": str, "vector": list[float]}), work
    )


def _store(vectors: dc.DataChain, work: Work) -> int:
    vectors.to_parquet(work.out)
    return int(pq.read_metadata(work.out).num_rows)


if __name__ == "__main__":
    main(text, image)
