"""Embedder `clap`: sounds in the joint space of sounds and texts, by any CLAP model of a hub or a folder.

Wu et al., "Large-scale contrastive language-audio pretraining with feature fusion and keyword-to-caption
augmentation" (2023), as transformers implements it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mm_embed_kernels.embedders.hub import HubEmbedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.media.audio import read_window
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.audio import WINDOW_SECONDS


class CLAP(HubEmbedder):
    """Windows of sound, which words find; a window shorter than the model's is repeated, as in training."""

    name = "clap"
    modality = "audio"
    libraries = ("av", "soundfile", "tokenizers", "torch", "transformers")
    seconds = 0.6
    batch_size = 8
    input_dtype = "float32"

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        return int(self._setting("config.json", "projection_dim"))

    @cached_property
    def rate(self) -> int:
        """Sample rate of the model, Hz."""
        return int(self._setting("preprocessor_config.json", "sampling_rate"))

    def _setting(self, file: str, name: str) -> Any:
        found = self.read_json(file)
        if not isinstance(found, dict) or name not in found:
            raise UserError(
                f"embedder {self.name}: {self.folder}/{file} has no {name}; is it a model of CLAP?"
            )
        return found[name]

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (int(WINDOW_SECONDS * self.rate),)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        seconds = self._setting("preprocessor_config.json", "max_length_s")
        if seconds < WINDOW_SECONDS:
            # It would hear some part of a window, chosen at random.
            raise UserError(
                f"embedder {self.name}: its model hears {seconds} seconds; windows have {WINDOW_SECONDS:g}"
            )
        return {
            "rate": self.rate,
            "mix": "mono",
            "seconds": WINDOW_SECONDS,
            "spectrum": "the model's own",
            "fusion": "none is longer",
        }

    def decode(self, data: Media, span: str) -> np.ndarray[Any, Any]:
        return read_window(data, span, self.rate, WINDOW_SECONDS)

    def open_model(self) -> Any:
        import torch
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads:
            torch.set_num_threads(self.threads)
        self._tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        self._spectrum = ClapFeatureExtractor.from_pretrained(self.folder, local_files_only=True)
        model = ClapModel.from_pretrained(self.folder, local_files_only=True, dtype=torch.float32)
        return model.to(self.device).eval()

    def embed(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(inputs), self.batch_size):
                # Without the padding of the array, in whose place the sound is repeated.
                waves = [np.trim_zeros(each, "b") for each in inputs[start : start + self.batch_size]]
                made = self._spectrum(
                    [wave if len(wave) else np.zeros(1, np.float32) for wave in waves],
                    sampling_rate=self.rate,
                    return_tensors="pt",
                )
                features = made["input_features"].to(self.device)
                # In a batch without a long sound the library takes one at random for long.
                longer = torch.zeros((len(features), 1), dtype=torch.bool, device=self.device)
                found = self._model.get_audio_features(input_features=features, is_longer=longer)
                vectors.append(found.pooler_output.float().cpu().numpy())
        return np.concatenate(vectors)

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        import torch

        self.load()
        # RoBERTa counts positions from behind its padding token.
        places = self._model.config.text_config.max_position_embeddings - 2
        words = self._tokenizer(
            texts, padding=True, truncation=True, max_length=places, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            found = self._model.get_text_features(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            )
        vectors: np.ndarray[Any, Any] = found.pooler_output.float().cpu().numpy()
        return vectors
