"""BERT encoders (Devlin et al., 2019) on packed batches: no padding, one product for query, key and value.

Attention is computed among texts of one length, so that no mask is needed; all other layers get the tokens of
a batch as one matrix, small enough for the processor's cache. On sentences this is about half of the
computation of padded batches of 64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.inference.runtime import in_inference_mode, map_batches

# Weight and bias.
_Pair = tuple[Any, Any]


class PackedBert:
    """An encoder with mean pooling.

    Args:
        folder: with ``config.json``, ``model.safetensors`` and ``tokenizer.json``; the parameters have the
            names of Hugging Face's `BertModel`, the activation is ``gelu``.
        max_tokens: at which a text is cut off.
        device: of the model.
        precision: ``float32`` or ``bfloat16``.

    Raises:
        ValueError: for another activation.
    """

    def __init__(
        self, folder: Path, max_tokens: int, device: str = "cpu", precision: str = "float32"
    ) -> None:
        import torch
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self._device = device
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["hidden_act"] != "gelu":
            raise ValueError(f"{folder}: activation {config['hidden_act']!r}, not 'gelu'")
        self.dimension, self._heads, self._epsilon = (
            config["hidden_size"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
        )
        dtype = getattr(torch, precision)
        saved = {
            name: value.to(device, dtype)
            for name, value in load_file(str(folder / "model.safetensors")).items()
        }

        def pair(name: str) -> _Pair:
            return saved[f"{name}.weight"], saved[f"{name}.bias"]

        self._words = saved["embeddings.word_embeddings.weight"]
        # Each text is a single segment, so that the embedding of its type can be added beforehand.
        self._positions = (
            saved["embeddings.position_embeddings.weight"]
            + saved["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for number in range(config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            inputs = [pair(f"{layer}.attention.self.{name}") for name in ("query", "key", "value")]
            self._layers.append(
                (
                    (torch.cat([weight for weight, _ in inputs]), torch.cat([bias for _, bias in inputs])),
                    *(
                        pair(f"{layer}.{name}")
                        for name in ("attention.output.dense", "attention.output.LayerNorm")
                    ),
                    *(
                        pair(f"{layer}.{name}")
                        for name in ("intermediate.dense", "output.dense", "output.LayerNorm")
                    ),
                )
            )

    def unread_shares(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return the share of ``[UNK]`` among the word pieces of each text, float32 [n]."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return np.array(
            [item.tokens.count("[UNK]") / max(1, len(item.tokens)) for item in encoded], np.float32
        )

    def encode(
        self, texts: Sequence[str], batch_tokens: int, threads: int | None = None
    ) -> np.ndarray[Any, Any]:
        """Return unit vectors, float32 [n, dimension].

        Args:
            texts: n texts.
            batch_tokens: most tokens of a forward pass; a longer text has one of its own.
            threads: see `map_batches` and `in_inference_mode`.
        """
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch([str(text) for text in texts])]
        vectors = np.zeros((len(tokens), self.dimension), np.float32)
        batches = list(_batches([len(ids) for ids in tokens], batch_tokens))
        encoded = map_batches(
            in_inference_mode(self._forward, threads),
            ([tokens[index] for index in indices] for indices in batches),
            threads,
        )
        for indices, each in zip(batches, encoded, strict=True):
            vectors[indices] = each
        return vectors

    def _forward(self, batch: list[list[int]]) -> Any:
        """Return unit vectors of token lists that are sorted by length, float32 [n, dimension]."""
        import torch
        from torch.nn.functional import gelu, layer_norm, linear, normalize

        groups = [(len(list(same)), length) for length, same in groupby(map(len, batch))]
        sizes, shape, epsilon = [count * length for count, length in groups], (self.dimension,), self._epsilon
        ids = torch.tensor([token for tokens in batch for token in tokens], device=self._device)
        positions = torch.cat(
            [torch.arange(length, device=self._device).repeat(count) for count, length in groups]
        )
        x = layer_norm(self._words[ids] + self._positions[positions], shape, *self._norm, epsilon)
        for inputs, output, first_norm, wide, narrow, second_norm in self._layers:
            parts = linear(x, *inputs).split(sizes)
            attended = torch.cat(
                [self._attend(part, *group) for part, group in zip(parts, groups, strict=True)]
            )
            x = layer_norm(linear(attended, *output).add_(x), shape, *first_norm, epsilon)
            x = layer_norm(linear(gelu(linear(x, *wide)), *narrow).add_(x), shape, *second_norm, epsilon)
        means = [
            part.view(*group, self.dimension).float().mean(1)
            for part, group in zip(x.split(sizes), groups, strict=True)
        ]
        return normalize(torch.cat(means), dim=1).cpu().numpy()

    def _attend(self, part: Any, count: int, length: int) -> Any:
        """Return the attention among the tokens of each of `count` texts.

        Args:
            part: query, key and value, [count * length, 3 * dimension].
            count: number of texts.
            length: tokens of each.

        Returns:
            [count * length, dimension].
        """
        from torch.nn.functional import scaled_dot_product_attention

        query, key, value = part.view(count, length, 3, self._heads, self.dimension // self._heads).permute(
            2, 0, 3, 1, 4
        )
        return (
            scaled_dot_product_attention(query, key, value)
            .transpose(1, 2)
            .reshape(count * length, self.dimension)
        )


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Stream the places of texts, the shortest first, in batches of at most `most` tokens."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and tokens + lengths[index] > most:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
