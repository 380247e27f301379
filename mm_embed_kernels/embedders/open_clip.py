"""Embedders `open_clip` and `open_clip_frames`: any open_clip model of a hub or a folder."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.embedders.hub import HubEmbedder
from mm_embed_kernels.embedders.pictures import FrameEmbedder, PictureEmbedder, center_crop
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.inference.devices import to_device

if TYPE_CHECKING:
    from PIL import Image

# Normalization of OpenAI's CLIP, open_clip's default for a model that declares none.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class OpenCLIP(HubEmbedder, PictureEmbedder):
    """Pictures in the joint space of pictures and texts of a contrastive model."""

    name = "open_clip"
    libraries = ("open_clip_torch", "pillow", "pi-heif", "torch", "torchvision")
    code_version = "4"
    seconds = 0.1
    batch_size = 32

    @cached_property
    def config(self) -> dict[str, Any]:
        """Configuration of the model, with ``model_cfg.embed_dim``."""
        config: dict[str, Any] = self.read_json("open_clip_config.json")
        if "embed_dim" not in config.get("model_cfg", {}):
            raise UserError(
                f"embedder {self.name}: {self.folder}/open_clip_config.json has no model_cfg.embed_dim"
            )
        return config

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        return int(self.config["model_cfg"]["embed_dim"])

    @cached_property
    def side(self) -> int:
        """Side of the model's input square, pixels."""
        size = (
            self.config.get("preprocess_cfg", {}).get("size")
            or self.config["model_cfg"]["vision_cfg"]["image_size"]
        )
        return int(size[-1] if isinstance(size, list) else size)

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.side, self.side, 3)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        given = self.config.get("preprocess_cfg", {})
        mode = given.get("resize_mode", "shortest")
        if mode not in ("shortest", "squash"):
            raise UserError(
                f"embedder {self.name}: its model resizes pictures by {mode!r}; "
                "supported are shortest and squash"
            )
        return {
            "side": self.side,
            "resize": mode,
            "interpolation": "bicubic",
            "mean": list(given.get("mean") or _MEAN),
            "std": list(given.get("std") or _STD),
            "alpha": "white",
            "orientation": "exif",
        }

    def prepare(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        if self.preprocessing["resize"] == "squash":
            from PIL import Image

            return np.asarray(
                picture.resize((self.side, self.side), Image.Resampling.BICUBIC), dtype=np.uint8
            )
        return center_crop(picture, self.side, self.side)

    def open_model(self) -> Any:
        import open_clip
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        location = f"local-dir:{self.folder}"
        self._tokenizer = open_clip.get_tokenizer(location)
        return open_clip.create_model(location, device=self.device).eval()

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        mean, std = (
            torch.tensor(self.preprocessing[name], device=self.device).view(1, 3, 1, 1)
            for name in ("mean", "std")
        )
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(inputs), self.batch_size):
                batch = to_device(inputs[start : start + self.batch_size], self.device)
                pixels = batch.permute(0, 3, 1, 2).float() / 255
                vectors.append(
                    self._model.encode_image((pixels - mean) / std, normalize=True).float().cpu().numpy()
                )
        return np.concatenate(vectors)

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        with torch.inference_mode():
            vectors: np.ndarray[Any, Any] = (
                self._model.encode_text(self._tokenizer(texts).to(self.device), normalize=True)
                .float()
                .cpu()
                .numpy()
            )
        return vectors


class OpenCLIPFrames(FrameEmbedder):
    """Scenes by the mean vector of their frames in the space of a contrastive model."""

    name = "open_clip_frames"
    takes_model = True
    libraries = (*OpenCLIP.libraries, "av")
    code_version = "4"
    seconds = 0.5
    batch_size = 8

    def __init__(
        self, device: str = "cpu", batch_size: int | None = None, threads: int | None = None, model: str = ""
    ) -> None:
        pictures = OpenCLIP(device, (batch_size or self.batch_size) * self.frames, threads, model)
        super().__init__(pictures, model)
