"""Embedders of the pictures of pages, by an embedder of pictures, and the bundled one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mm_embed_kernels.embedders.conse import ConSE
from mm_embed_kernels.embedders.pictures import PictureEmbedder, PictureSpaceEmbedder
from mm_embed_kernels.media.document import open_document, open_page, page_of, page_picture
from mm_embed_kernels.media.media_type import Media


class PagePictureEmbedder(PictureSpaceEmbedder):
    """An embedder of pages by what they look like, in the space of a picture embedder.

    Attributes:
        drawn_side: longer side of a drawn page, pixels.
    """

    modality = "document"
    drawn_side: ClassVar[int] = 768

    def __init__(self, pictures: PictureEmbedder, model: str = "") -> None:
        super().__init__(pictures, pictures.batch_size, model)

    @property
    def input_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        return self.pictures.input_shape

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {**self.pictures.preprocessing, "drawn_side": self.drawn_side}

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        from PIL import Image

        with open_document(data) as document, open_page(document, page_of(span)) as page:
            return self.pictures.prepare(Image.fromarray(page_picture(page, self.drawn_side)))

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.pictures.embed(inputs)


class ConSEPages(PagePictureEmbedder):
    """Pages of ImageNet-like content, such as photo books, 384-d, in MiniLM's space."""

    name = "page_pictures"
    libraries = (*ConSE.libraries, "pypdfium2")
    seconds = 0.02
    batch_size = 4

    def __init__(
        self, device: str = "cpu", batch_size: int | None = None, threads: int | None = None
    ) -> None:
        super().__init__(ConSE(device, batch_size or self.batch_size, threads))
