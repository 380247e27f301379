"""BERT encoders (Devlin et al., 2019) for one text, in NumPy.

The vector of a query is there before torch is imported, which takes more than a second of CPU.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
# Of the error function, with an error below 1.5e-7: formula 7.1.26 of Abramowitz & Stegun, "Handbook of
# Mathematical Functions".
_P, _TERMS = 0.3275911, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


class SingleBert:
    """An encoder with mean pooling, in float32; equals `PackedBert` within 1e-6.

    Args:
        folder, max_tokens: see `PackedBert`.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self._saved: dict[str, Array] = load_file(str(folder / "model.safetensors"))

    def encode(self, text: str) -> Array:
        """Return the unit vector of a text, float32 [dimension]."""
        ids = self._tokenizer.encode(text).ids
        embeddings = [
            self._saved[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        ]
        words, positions, types = embeddings
        x = self._norm(words[ids] + positions[: len(ids)] + types[0], "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            attended = self._linear(self._attend(x, layer), f"{layer}.attention.output.dense")
            x = self._norm(x + attended, f"{layer}.attention.output.LayerNorm")
            wide = _gelu(self._linear(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = x.mean(0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def _attend(self, x: Array, layer: str) -> Array:
        """Return the attention among tokens, [tokens, dimension]."""
        heads = self._config["num_attention_heads"]
        query, key, value = (
            self._linear(x, f"{layer}.attention.self.{name}").reshape(len(x), heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[2]))
        weights = np.exp(scores - scores.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        return np.asarray((weights @ value).transpose(1, 0, 2).reshape(x.shape))

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._saved[f"{name}.weight"].T + self._saved[f"{name}.bias"])

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(1, keepdims=True)
        deviation = np.sqrt(
            np.square(centred).mean(1, keepdims=True) + np.float32(self._config["layer_norm_eps"])
        )
        return np.asarray(
            centred / deviation * self._saved[f"{name}.weight"] + self._saved[f"{name}.bias"], np.float32
        )


def _gelu(x: Array) -> Array:
    """Return x * Phi(x), as torch computes it without an approximation by tanh."""
    scaled = np.abs(x) / np.float32(math.sqrt(2))
    t = 1 / (1 + np.float32(_P) * scaled)
    tail = np.polyval(np.array([*_TERMS, 0], np.float32), t) * np.exp(-scaled * scaled)
    return np.asarray(x * (1 + np.copysign(1 - tail, x)) / 2, np.float32)
