"""Embedder `pages`: a page by its text layer, or by its picture where it has none, in MiniLM's space."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.embedders.conse import ConSE
from mm_embed_kernels.embedders.minilm import MiniLM
from mm_embed_kernels.media.document import open_document, open_page, page_of, page_picture, page_text
from mm_embed_kernels.media.media_type import Media

# As segments of texts: what MiniLM reads at once.
_CHUNK_CHARACTERS = 1_000
# Side of the drawn page before it is prepared for the model, pixels.
_SIDE = 512
_TEXT, _PICTURE = 1, 2


class Pages(Embedder):
    """Pages of documents, 384-d, in MiniLM's space, as texts and pictures of `conse` are.

    The vector of a page with a text layer is the mean of the unit vectors of its parts of 1,000 characters,
    weighted by their length (of its first 150,527 bytes); that of a scan is the vector of its picture by
    ConSE.
    """

    name = "pages"
    modality = "document"
    dimension = 384
    # The first value tells which of both follows: UTF-8, or the pixels of the picture.
    input_shape = (1 + 224 * 224 * 3,)
    libraries = (*ConSE.libraries, "pypdfium2", "semantic-text-splitter")
    languages = ("en",)
    seconds = 0.02
    batch_size = 16

    @cached_property
    def _texts(self) -> MiniLM:
        return MiniLM(self.device, threads=self.threads)

    @cached_property
    def _pictures(self) -> ConSE:
        return ConSE(self.device, threads=self.threads)

    @property
    def weights(self) -> tuple[Path, ...]:
        return self._pictures.weights

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "text": {
                **self._texts.preprocessing,
                "characters": _CHUNK_CHARACTERS,
                "pooling": "mean by length",
            },
            "picture": {**self._pictures.preprocessing, "drawn_side": _SIDE},
        }

    @property
    def space(self) -> str:
        return self._texts.space

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        from PIL import Image

        with open_document(data) as document, open_page(document, page_of(span)) as page:
            text = page_text(page)
            if text:
                kind, content = _TEXT, np.frombuffer(text.encode(errors="ignore"), np.uint8)
            else:
                picture = Image.fromarray(page_picture(page, _SIDE))
                kind, content = _PICTURE, self._pictures.prepare(picture).reshape(-1)
        values = np.zeros(self.input_shape, np.uint8)
        content = content[: len(values) - 1]
        values[0], values[1 : 1 + len(content)] = kind, content
        return values

    def shrink_batches(self) -> bool:
        texts, pictures = self._texts.shrink_batches(), self._pictures.shrink_batches()
        return texts or pictures

    def load(self) -> None:
        self._texts.load()

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        vectors = np.zeros((len(inputs), self.dimension), np.float32)
        drawn = inputs[:, 0] == _PICTURE
        if drawn.any():
            pictures = inputs[drawn, 1:].reshape(-1, *self._pictures.input_shape)
            vectors[drawn] = self._pictures.embed(pictures)
        # The last character may have been cut off.
        texts = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in inputs[~drawn, 1:]]
        if texts:
            vectors[~drawn] = self._embed_pages(texts)
        return vectors

    def _embed_pages(self, texts: list[str]) -> np.ndarray[Any, Any]:
        parts = [_splitter().chunks(text) or [text] for text in texts]
        each = self._texts.embed([part for page in parts for part in page])
        weights = np.array([len(part) for page in parts for part in page], np.float32)
        starts = np.cumsum([0, *map(len, parts[:-1])])
        mean: np.ndarray[Any, Any] = np.add.reduceat(each * weights[:, None], starts, axis=0)
        return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12))

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self._texts.embed_text(texts)

    def unread_shares(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self._texts.unread_shares(texts)


@cache
def _splitter() -> Any:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(_CHUNK_CHARACTERS)
