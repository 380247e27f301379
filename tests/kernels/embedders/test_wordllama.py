from __future__ import annotations

import numpy as np

from mm_embed_kernels.embedders import create
from mm_embed_kernels.kernels.embed import embed_each


def test_meaning() -> None:
    found = create("wordllama")
    query = found.embed_text(["a small cat"])[0]
    near = [
        float(query @ vector)
        for vector in embed_each(found, ["a kitten plays", "stock markets fell", "the engine of a car"])
    ]
    assert near[0] > 2 * max(near[1:])


def test_vectors_do_not_depend_on_their_batch() -> None:
    found = create("wordllama")
    texts = ["short", "a rather longer text, with many more words in it than the first one has", "third"]
    together, alone = found.embed(texts), np.concatenate([found.embed([text]) for text in texts])
    assert together.shape == (3, found.dimension)
    np.testing.assert_allclose(together, alone, atol=1e-5)
