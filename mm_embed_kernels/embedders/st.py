"""Embedder `st`: any sentence-transformers model of a hub or a folder, whole or cut to its first values.

``st:MODEL#256`` keeps the first 256 values of each vector and scales them to unit norm, for models that are
trained for it (Kusupati et al., "Matryoshka representation learning", 2022).
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.hub import HubEmbedder
from mm_embed_kernels.errors import UserError

_CUT = re.compile(r"(.+)#([0-9]{1,6})")


class SentenceTransformers(HubEmbedder):
    """Texts by a sentence-transformers model, with its own prompts for queries and documents."""

    name = "st"
    modality = "text"
    libraries = ("sentence-transformers", "transformers", "tokenizers", "torch")
    seconds = 0.02

    @property
    def source(self) -> str:
        cut = _CUT.fullmatch(self.model)
        return cut[1] if cut else self.model

    @property
    def cut(self) -> int | None:
        """Number of values that are kept; None for all."""
        cut = _CUT.fullmatch(self.model)
        return int(cut[2]) if cut else None

    @property
    def space(self) -> str:
        return super().space if self.cut is None else f"{super().space}-{self.cut}"

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        """Length of its vectors.

        Raises:
            UserError: where the model has no more values than are to be kept.
        """
        if self.cut is None:
            return self._whole_dimension
        if not 0 < self.cut < self._whole_dimension:
            raise UserError(
                f"embedder {self.name}: vectors of {self.source} have {self._whole_dimension} values; "
                "#N keeps fewer than that, at least one"
            )
        return self.cut

    @cached_property
    def _whole_dimension(self) -> int:
        """Length of the model's vectors, read from the configuration of its modules without loading them."""
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
        own: dict[str, Any] = {"prompts": "the model's own", "normalize": True}
        return own if self.cut is None else {**own, "cut": self.dimension}

    def open_model(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads:
            torch.set_num_threads(self.threads)
        return SentenceTransformer(
            str(self.folder), device=self.device, local_files_only=True, truncate_dim=self.cut
        )

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
