"""The loop written by hand: one process, one loop, one Parquet file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from work import IMAGE_BATCH, Images, Texts, Work, main, pngs


def text(work: Work) -> int:
    texts = pq.read_table(work.files)["text"].to_pylist()
    return _store(work, Texts(work.model)(texts))


def image(work: Work) -> int:
    import numpy as np

    model, paths = Images(work.model), pngs(work.files)
    parts = [paths[start : start + IMAGE_BATCH] for start in range(0, len(paths), IMAGE_BATCH)]
    return _store(
        work, np.concatenate([model([Image.open(path).convert("RGB") for path in part]) for part in parts])
    )


def _store(work: Work, vectors) -> int:  # type: ignore[no-untyped-def]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"vector": column}), work.out)
    return len(column)


if __name__ == "__main__":
    main(text, image)
