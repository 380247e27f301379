"""UDFs of Pixeltable, which must be in a module other than the script."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pixeltable as pxt
from pixeltable.func import Batch
from work import IMAGE_BATCH, IMAGE_SIZE, TEXT_BATCH, TEXT_SIZE, Images, Texts

MODEL = "MM_PEERMODEL"


@cache
def _texts() -> Texts:
    return Texts(os.environ[MODEL])


@cache
def _images() -> Images:
    return Images(os.environ[MODEL])


@pxt.udf(batch_size=TEXT_BATCH)
def embed_texts(text: Batch[str]) -> Batch[pxt.Array[(TEXT_SIZE,), np.float32]]:  # type: ignore[valid-type]
    return list(_texts()(text))


@pxt.udf(batch_size=IMAGE_BATCH)
def embed_images(picture: Batch[pxt.Image]) -> Batch[pxt.Array[(IMAGE_SIZE,), np.float32]]:  # type: ignore[valid-type]
    return list(_images()([each.convert("RGB") for each in picture]))
