"""Base classes of picture embedders, and of video embedders that pool the vectors of frames."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.identity import library_versions
from mm_embed_kernels.media.film_reader import reader_libraries
from mm_embed_kernels.media.frames import read_at
from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import seconds_of

if TYPE_CHECKING:
    from PIL import Image


class PictureEmbedder(Embedder):
    """An embedder of still pictures, which are turned upright, flattened to RGB and prepared for the model.

    Attributes:
        draft_side: a large JPEG is decoded at its smallest size with no side below this, pixels.
    """

    modality = "image"
    draft_side: ClassVar[int] = 512

    @abstractmethod
    def prepare(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """Convert an RGB picture to an array of `input_shape`, inside the sandbox, without `load`."""

    def decode(self, data: bytes, span: str) -> np.ndarray[Any, Any]:  # noqa: ARG002 - a picture is one segment
        # An incomplete picture gets here only where the spec keeps the beginnings of such.
        return self.prepare(read_picture(data, self.draft_side).rgb)


class PictureSpaceEmbedder(Embedder):
    """An embedder of media that are drawn as pictures, in the space of a picture embedder.

    Attributes:
        pictures: embedder of the pictures.
    """

    def __init__(self, pictures: PictureEmbedder, batch_size: int, model: str = "") -> None:
        super().__init__(pictures.device, batch_size, pictures.threads, model)
        self.pictures = pictures
        self.input_dtype = pictures.input_dtype

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return self.pictures.dimension

    @property
    def weights(self) -> tuple[Path, ...]:
        return self.pictures.weights

    @property
    def space(self) -> str:
        return self.pictures.space

    def shrink_batches(self) -> bool:
        return self.pictures.shrink_batches()

    def load(self) -> None:
        self.pictures.load()

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self.pictures.embed_text(texts)


class FrameEmbedder(PictureSpaceEmbedder):
    """An embedder of video: the mean of the frames' unit vectors, in the space of a picture embedder.

    Attributes:
        frames: number of frames per segment, each the middle one of an equal part.
    """

    modality = "video"
    frames: ClassVar[int] = 4

    def __init__(self, pictures: PictureEmbedder, model: str = "") -> None:
        super().__init__(pictures, max(1, pictures.batch_size // self.frames), model)

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        assert self.pictures.input_shape is not None
        return (self.frames, *self.pictures.input_shape)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            **self.pictures.preprocessing,
            "frames": self.frames,
            "reader": library_versions(reader_libraries()),
            "placed": "middle of equal parts",
            "pooling": "mean of unit vectors",
        }

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        from PIL import Image

        start, end = seconds_of(span)
        seconds = [start + (end - start) * (i + 0.5) / self.frames for i in range(self.frames)]
        return np.stack([self.pictures.prepare(Image.fromarray(frame)) for frame in read_at(data, seconds)])

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        each = np.asarray(self.pictures.embed(inputs.reshape(-1, *inputs.shape[2:])), np.float32)
        each = each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12)
        mean: np.ndarray[Any, Any] = each.reshape(len(inputs), self.frames, -1).mean(axis=1)
        return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12))


def center_crop(picture: Image.Image, resize: int, side: int) -> np.ndarray[Any, Any]:
    """Resize the shorter side (bicubic) and cut a square from the middle, uint8 [side, side, 3].

    Args:
        picture: RGB.
        resize: length of the shorter side before the cut, pixels.
        side: side of the square, pixels.
    """
    from PIL import Image

    scale = resize / min(picture.size)
    size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
    left, top = (size[0] - side) / 2 / scale, (size[1] - side) / 2 / scale
    # Only the crop is resampled, so that a very long picture never becomes a very large one.
    box = (
        max(0.0, left),
        max(0.0, top),
        min(picture.width, left + side / scale),
        min(picture.height, top + side / scale),
    )
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box), dtype=np.uint8)
