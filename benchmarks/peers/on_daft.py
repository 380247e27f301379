"""Daft: class UDFs on batches, native download and decoding, after its guide to embeddings."""

from __future__ import annotations

from typing import Any

import daft
from daft import DataType, col
from PIL import Image
from work import IMAGE_BATCH, IMAGE_SIZE, TEXT_BATCH, TEXT_SIZE, Images, Texts, Work, main


@daft.udf(
    return_dtype=DataType.embedding(DataType.float32(), TEXT_SIZE), batch_size=TEXT_BATCH, concurrency=1
)
class EmbedTexts:
    """Class UDF: texts to vectors."""

    def __init__(self, model: str) -> None:
        self.model = Texts(model)

    def __call__(self, texts: daft.Series) -> Any:
        return list(self.model(texts.to_pylist()))


@daft.udf(
    return_dtype=DataType.embedding(DataType.float32(), IMAGE_SIZE), batch_size=IMAGE_BATCH, concurrency=1
)
class EmbedImages:
    """Class UDF: decoded pictures to vectors."""

    def __init__(self, model: str) -> None:
        self.model = Images(model)

    def __call__(self, pictures: daft.Series) -> Any:
        return list(self.model([Image.fromarray(pixels) for pixels in pictures.to_pylist()]))


def text(work: Work) -> int:
    embed = EmbedTexts.with_init_args(work.model)
    return _store(daft.read_parquet(work.files).select("id", embed(col("text")).alias("vector")), work)


def image(work: Work) -> int:
    embed = EmbedImages.with_init_args(work.model)
    files = daft.from_glob_path(f"{work.files}/*.png")
    pictures = files.select("path", col("path").download().decode_image(mode="RGB").alias("image"))
    return _store(pictures.select("path", embed(col("image")).alias("vector")), work)


def _store(vectors: daft.DataFrame, work: Work) -> int:
    vectors.write_parquet(work.out)
    return int(daft.read_parquet(f"{work.out}/*.parquet").count_rows())


if __name__ == "__main__":
    main(text, image)
