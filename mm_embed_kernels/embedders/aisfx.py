"""Embedder `aisfx`: sounds by a network trained on the sound effects of film libraries.

Ma and Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022; the
weights (CC BY 4.0) come with the pip package `aisfx`, whose code is not used, since it pins libraries of
2022. The vector of a window is the mean over its blocks of 2.3 s; those of digital silence count
only where there are no others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.inference.devices import to_device
from mm_embed_kernels.inference.padding import unpadded_length
from mm_embed_kernels.inference.runtime import freeze_network, in_inference_mode, map_batches
from mm_embed_kernels.inference.weights import package_folder
from mm_embed_kernels.media.audio import read_window
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.audio import WINDOW_SECONDS

# Input of the network in training (the package's `inference.py`): log-mel frames of 46 ms every 23 ms, half
# overlapping blocks of 100 frames; the compressed spectrum is divided by its largest value in the training
# data.
_RATE, _FFT, _HOP, _MELS, _BLOCK, _LARGEST = 44_100, 2_048, 1_024, 96, 100, 9.457798957824707
_CHANNELS = (1, 64, 128, 256, 512)


class AiSFX(Embedder):
    """Noises, ambiences, instruments and voices, 512-d; sounds are compared with sounds, not with words."""

    name = "aisfx"
    modality = "audio"
    dimension = 512
    input_shape = (int(WINDOW_SECONDS * _RATE),)
    input_dtype = "float32"
    libraries = ("aisfx", "av", "soundfile", "torch", "torchaudio")
    code_version = "4"
    seconds = 0.3
    batch_size = 1

    @property
    def weights(self) -> tuple[Path, ...]:
        return (package_folder("embedder aisfx", "aisfx", "aisfx") / "models" / "checkpoint.pth",)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "rate": _RATE,
            "mix": "mono",
            "seconds": WINDOW_SECONDS,
            "window": f"hann {_FFT}/{_HOP}",
            "mels": f"{_MELS} htk, triangles in mel, unit sum",
            "compression": "log10(10000 x + 1)",
            "divisor": _LARGEST,
            "block": f"{_BLOCK}/{_BLOCK // 2} frames",
            "pooling": "mean, by sounding frames",
        }

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        return read_window(data, span, _RATE, WINDOW_SECONDS)

    def load(self) -> None:
        self._features, self._net = _model(str(self.weights[0]), self.device)

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.load()
        batches = (
            inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size)
        )
        sounding = (batch[:, : _sounding_length(batch)] for batch in batches)
        return np.concatenate(
            map_batches(in_inference_mode(self._embed_batch, self.threads), sounding, self.threads)
        )

    def _embed_batch(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return pool_blocks(batch, self._features, self._net, self.device)


def _sounding_length(sounds: np.ndarray[Any, Any]) -> int:
    """Number of samples up to the end of the last block with sound; later ones have no weight."""
    last = max(0, *(unpadded_length(sound) - 1 for sound in sounds))
    # The frame centered at the last sample, or the next one, which contains it as well.
    block = ((last + _FFT // 2) // _HOP) // (_BLOCK // 2)
    return (block + 2) * (_BLOCK // 2) * _HOP


def pool_blocks(
    sounds: np.ndarray[Any, Any], features: Any, net: Any, device: str = "cpu"
) -> np.ndarray[Any, Any]:
    """Compute vectors of sounds, float32 [n, 512]: the mean over their blocks, weighted by frames with sound.

    Args:
        sounds: float32 [n, samples] at 44.1 kHz.
        features: function from samples to log-mel frames, see `features_on`.
        net: network from blocks to vectors, see `network`.
        device: device of both.
    """
    import torch

    blocks = features(to_device(sounds, device)).unfold(1, _BLOCK, _BLOCK // 2).transpose(2, 3)
    weight = (blocks.amax(dim=3) > 0).sum(dim=2).float()
    # Digital silence is a sound like any other: one block of it speaks for all.
    weight[weight.sum(dim=1) == 0, 0] = 1
    sounding = weight > 0
    vectors = torch.zeros(*weight.shape, _CHANNELS[-1], device=device)
    # A short clip fills few of the blocks, and only those are computed.
    vectors[sounding] = net(blocks[sounding][:, None]).mean(dim=3).amax(dim=2)
    means: np.ndarray[Any, Any] = (
        ((vectors * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)).cpu().numpy()
    )
    return means


@cache
def _model(path: str, device: str) -> tuple[Any, Any]:
    """Return the feature function and the network, made once per process."""
    return features_on(device), freeze_network(network(path), (4, _MELS, _BLOCK, 1), device)


def features_on(device: str) -> Callable[[Any], Any]:
    """Return a function from samples [n, s] to log-mel frames [n, frames, mels]."""
    import torch
    import torchaudio

    spectrum = torchaudio.transforms.Spectrogram(_FFT, hop_length=_HOP, power=2.0, pad_mode="constant").to(
        device
    )
    bank = torch.from_numpy(_mel_bank()).to(device)

    def features(sound: Any) -> Any:
        # Only full blocks: the samples are padded or cut to the end of the last block.
        frames = -(-sound.shape[1] // _HOP)
        blocks = max(1, -(-(frames - _BLOCK) // (_BLOCK // 2)) + 1)
        padded = torch.nn.functional.pad(
            sound, (0, (blocks + 1) * (_BLOCK // 2) * _HOP - sound.shape[1] - _HOP)
        )
        return torch.log10(1e4 * (spectrum(padded).transpose(1, 2) @ bank) + 1) / _LARGEST

    return features


def network(path: str) -> Any:
    """Convolutions of a nine-layer CNN, with their weights.

    Kong et al., "DCASE 2018 Challenge baseline with convolutional neural networks".
    """
    from torch import nn

    layers: list[Any] = []
    for before, after in pairwise(_CHANNELS):
        for channels in (before, after):
            layers += [
                nn.Conv2d(channels, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.MaxPool2d(2)]
    net = nn.Sequential(*layers[:-1])
    net.load_state_dict(_parameters(path))
    return net.eval()


def _parameters(path: str) -> dict[str, Any]:
    """Parameters by their names in `network`, without those of the classifiers used in training."""
    import torch

    # The checkpoint pickles a few NumPy numbers beside tensors.
    harmless = [
        (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
        np.dtype,
        type(np.dtype("int64")),
        type(np.dtype("float64")),
    ]
    with torch.serialization.safe_globals(harmless):
        saved, _ = torch.load(path, map_location="cpu", weights_only=True)
    layers = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
    parameters = {}
    for name, value in saved.items():
        if name.startswith("embedding_net.conv_block"):
            block, layer, tensor = name.removeprefix("embedding_net.conv_block").split(".")
            parameters[f"{7 * (int(block) - 1) + layers[layer]}.{tensor}"] = value
    return parameters


def _mel_bank() -> np.ndarray[Any, Any]:
    """Triangles linear in mel with unit sum over their bins, float32 [bins, mels] (Essentia's `MelBands`)."""
    mel = 2595 * np.log10(1 + np.linspace(0, _RATE / 2, _FFT // 2 + 1) / 700)
    edges = np.linspace(0, mel[-1], _MELS + 2)
    width = edges[1]
    triangles = np.maximum(0, 1 - np.abs(mel[:, None] - edges[None, 1:-1]) / width)
    return np.asarray(triangles / np.maximum(triangles.sum(axis=0), 1e-12), np.float32)
