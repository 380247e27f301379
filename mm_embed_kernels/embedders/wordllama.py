"""Embedder `wordllama`: the mean of token vectors of a large language model.

No network runs, so that millions of texts take minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.inference.weights import package_folder

_FILES = ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json")


class WordLlama(Embedder):
    """Static word-piece embeddings, 256-d.

    Miller, "WordLlama" (2024): trained average pooling over the token codebook of a language model.
    """

    name = "wordllama"
    modality = "text"
    dimension = 256
    libraries = ("wordllama", "tokenizers")
    languages = ("en",)
    seconds = 0.0001
    batch_size = 256

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(_package() / name for name in _FILES)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"pooling": "mean", "normalize": True}

    def load(self) -> None:
        if not hasattr(self, "_model"):
            from wordllama import WordLlama as Model

            self._model = Model.load(cache_dir=_package(), disable_download=True)

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        vectors: np.ndarray[Any, Any] = self._model.embed(inputs, batch_size=self.batch_size)
        return vectors

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        vectors = self.embed(texts)
        unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def _package() -> Path:
    return package_folder("embedder wordllama", "wordllama", "wordllama")
