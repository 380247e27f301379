from __future__ import annotations

import numpy as np

from mm_embed_kernels.embedders import create

SENTENCES = [
    "The cat is sitting on the chair.",
    "Кошка сидит на стуле.",
    "猫が椅子に座っている。",
    "Die Katze sitzt auf dem Stuhl.",
]


def test_translations_lie_near_each_other() -> None:
    muse = create("muse")
    vectors = muse.embed([*SENTENCES, "Share prices fell on Tuesday."])
    assert (vectors.dtype, vectors.shape) == (np.float32, (5, 512))
    cosines = vectors @ vectors.T
    assert cosines[:4, :4].min() > 0.6
    assert cosines[4, :4].max() < 0.4


def test_tokens_that_cannot_be_read() -> None:
    """Each word of cuneiform is unknown to both; of Thai to MiniLM alone."""
    texts = ["A plain sentence.", "\U00012000\U00012001", "สวัสดี"]
    np.testing.assert_allclose(create("minilm").unread_shares(texts), [0, 1, 1])
    shares = create("muse").unread_shares(texts)
    assert shares is not None
    assert shares[0] == shares[2] == 0
    assert shares[1] >= 0.5
