"""Embedder `st`: any sentence-transformers model of a hub or a folder."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.hub import HubEmbedder
from mm_embed_kernels.errors import UserError


class SentenceTransformers(HubEmbedder):
    """Texts by a sentence-transformers model, with its own prompts for queries and documents."""

    name = "st"
    modality = "text"
    libraries = ("sentence-transformers", "transformers", "tokenizers", "torch")
    seconds = 0.02

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        """Length of its vectors, read from the configuration of its modules without loading them."""
        for module in reversed(self.read_json("modules.json")):
            path = f"{module['path']}/config.json" if module["path"] else "config.json"
            config = self.read_json(path) if (self.folder / path).is_file() else {}
            size = (
                config.get("out_features")
                or config.get("word_embedding_dimension")
                or config.get("embedding_dimension")
            )
            if size := size or config.get("hidden_size"):
                return int(size)
        raise UserError(
            f"embedder {self.name}: {self.folder}/modules.json has no dimension; "
            "is it a sentence-transformers model?"
        )

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"prompts": "the model's own", "normalize": True}

    def open_model(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads:
            torch.set_num_threads(self.threads)
        return SentenceTransformer(str(self.folder), device=self.device, local_files_only=True)

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        return np.asarray(
            self._model.encode_document(
                inputs, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
            ),
            np.float32,
        )

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.load()
        return np.asarray(
            self._model.encode_query(texts, normalize_embeddings=True, show_progress_bar=False), np.float32
        )
