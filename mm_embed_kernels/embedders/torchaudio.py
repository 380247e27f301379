"""Embedder `torchaudio`: speech models of torchaudio.pipelines (such as wav2vec 2.0) or of a folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.hub import PICKLES, HubEmbedder, is_folder, model_files
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.media.audio import read_window
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.audio import WINDOW_SECONDS

_URL = "https://download.pytorch.org/torchaudio/models/"


class TorchaudioPipeline(HubEmbedder):
    """Windows of speech as the mean over time of a speech model's last layer; unfit for noises.

    The model is a ``NAME`` of `torchaudio.pipelines` (for example ``torchaudio:WAV2VEC2_BASE``), or a folder
    with weights and a ``config.json`` ({"sample_rate": …, "normalize": …, "params": arguments of
    `torchaudio.models.wav2vec2_model`}).
    """

    name = "torchaudio"
    modality = "audio"
    libraries = ("av", "soundfile", "torch", "torchaudio")
    seconds = 1.0
    code_version = "3"
    batch_size = 4
    input_dtype = "float32"

    @property
    def _is_pipeline(self) -> bool:
        return not is_folder(self.model)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Sample rate (Hz), normalization of the waveform, and arguments of the network."""
        if not self._is_pipeline:
            config: dict[str, Any] = self.read_json("config.json")
            if missing := {"sample_rate", "params"} - set(config):
                raise UserError(
                    f"embedder {self.name}: {self.folder}/config.json lacks {', '.join(sorted(missing))}"
                )
            return config
        bundle = self._bundle()
        return {
            "sample_rate": int(bundle.sample_rate),
            "normalize": bundle._normalize_waveform,
            "params": bundle._params,
        }

    def _bundle(self) -> Any:
        """Return the pipeline that the model names.

        Raises:
            UserError: for an unknown name.
        """
        from torchaudio import pipelines

        known = [
            name for name in dir(pipelines) if isinstance(getattr(pipelines, name), pipelines.Wav2Vec2Bundle)
        ]
        if self.model not in known:
            raise UserError(
                f"embedder {self.name}: torchaudio has no speech model {self.model}; "
                f"it has {', '.join(known)}"
            )
        return getattr(pipelines, self.model)

    @property
    def weights(self) -> tuple[Path, ...]:
        if not self._is_pipeline:
            return tuple(model_files(self.name, self.folder))
        import torch

        file = self._bundle()._path
        stored = Path(torch.hub.get_dir()) / "checkpoints" / file
        if not stored.is_file():
            stored.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(_URL + file, str(stored), progress=False)
            except OSError as error:
                raise UserError(
                    f"embedder {self.name}: {_URL}{file} cannot be reached, and {stored} is not there; "
                    "download it where there is a network"
                ) from error
        return (stored,)

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        return int(self.config["params"]["encoder_embed_dim"])

    @cached_property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (int(WINDOW_SECONDS * self.config["sample_rate"]),)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "rate": self.config["sample_rate"],
            "mix": "mono",
            "seconds": WINDOW_SECONDS,
            "normalize": bool(self.config.get("normalize")),
            "layer": "last",
            "pooling": "mean over time",
        }

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        return read_window(data, span, self.config["sample_rate"], WINDOW_SECONDS)

    def open_model(self) -> Any:
        import torch
        from torchaudio.models import wav2vec2_model

        if self.threads:
            torch.set_num_threads(self.threads)
        # The network alone; a pipeline's normalization is done in `embed`.
        network = wav2vec2_model(**self.config["params"])
        network.load_state_dict(_tensors(self.weights))
        return network.eval().to(self.device)

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        vectors = []
        with torch.inference_mode():
            # One by one and without the padding of the array, which would change the results of these
            # networks.
            for samples in inputs:
                wave = torch.from_numpy(np.array(np.trim_zeros(samples, "b"), np.float32))[None].to(
                    self.device
                )
                # Padded to the samples of one frame of the network.
                wave = torch.nn.functional.pad(wave, (0, max(0, 400 - wave.shape[1])))
                if self.config.get("normalize"):
                    wave = torch.nn.functional.layer_norm(wave, wave.shape)
                layers, _ = self._model.extract_features(wave)
                vectors.append(layers[-1].mean(dim=1)[0].float().cpu().numpy())
        return np.stack(vectors)


def _tensors(files: tuple[Path, ...]) -> dict[str, Any]:
    """Parameters by name; pickled files are restricted to tensors, which runs no code."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in files:
        if path.suffix == ".safetensors":
            tensors |= load_file(path)
        elif f"*{path.suffix}" in PICKLES:
            tensors |= torch.load(path, map_location="cpu", weights_only=True)
    return tensors
