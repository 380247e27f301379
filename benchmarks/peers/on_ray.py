"""Plain Ray Data: one actor for each core, after its guide to batch inference."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq
import ray
from PIL import Image
from ray.data import ActorPoolStrategy
from work import CORES, IMAGE_BATCH, TEXT_BATCH, Images, Texts, Work, main


class EmbedTexts:
    """Actor: texts to vectors."""

    def __init__(self, model: str) -> None:
        self.model = Texts(model, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], "vector": self.model(batch["text"])}


class EmbedImages:
    """Actor: encoded pictures to vectors."""

    def __init__(self, model: str) -> None:
        self.model = Images(model, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch["bytes"]]
        return {"path": batch["path"], "vector": self.model(pictures)}


def text(work: Work) -> int:
    # Actors take one CPU each; reading and writing need another.
    ray.init(num_cpus=CORES + 1, include_dashboard=False)
    texts = ray.data.read_parquet(work.files).repartition(2 * CORES)
    return _store(
        texts.map_batches(
            EmbedTexts, fn_constructor_args=[work.model], batch_size=TEXT_BATCH, compute=_pool()
        ),
        work,
    )


def image(work: Work) -> int:
    # Actors take one CPU each; reading and writing need another.
    ray.init(num_cpus=CORES + 1, include_dashboard=False)
    files = ray.data.read_binary_files(work.files, include_paths=True)
    return _store(
        files.map_batches(
            EmbedImages, fn_constructor_args=[work.model], batch_size=IMAGE_BATCH, compute=_pool()
        ),
        work,
    )


def _pool() -> ActorPoolStrategy:
    return ActorPoolStrategy(size=CORES)


def _store(vectors: ray.data.Dataset, work: Work) -> int:
    vectors.write_parquet(work.out)
    return int(pq.read_table(work.out).num_rows)


if __name__ == "__main__":
    main(text, image)
