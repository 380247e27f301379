"""Networks as they run here compute what the libraries' own code does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.embedders.minilm import model_folder
from mm_embed_kernels.inference.packed_bert import _batches
from mm_embed_kernels.inference.runtime import (
    export_onnx,
    freeze_network,
    in_inference_mode,
    load_or_make_array,
    map_batches,
    onnx_session,
)

TEXTS = [
    "A lighthouse stands on the coast.",
    "Interest rates rose again.",
    "",
    "  Two\nlines ",
    "naïve CAFÉ 東京 \N{GRINNING FACE}",
    "word " * 400,
]


@pytest.mark.parametrize("threads", [1, 3])
def test_packed_texts_get_the_vectors_of_sentence_transformers(threads: int) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    expected = reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    found = create("minilm", threads=threads, batch_size=2).embed(TEXTS)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_batches_hold_every_text_once_and_no_more_tokens_than_allowed() -> None:
    lengths = [5, 300, 2, 2, 9, 7, 2]
    batches = list(_batches(lengths, 12))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in batch) <= 12 or len(batch) == 1 for batch in batches)
    assert list(_batches([], 12)) == []


def test_a_frozen_network_computes_the_same_for_any_batch() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    network[1].running_mean.uniform_(-1, 1)
    inputs = torch.rand(5, 3, 9, 9)
    with torch.inference_mode():
        expected = network.eval()(inputs)
        folded = freeze_network(network, (2, 9, 9, 3))
        torch.testing.assert_close(folded(inputs), expected)
    assert "batch_norm" not in str(folded.graph)


@pytest.mark.parametrize("threads", [None, 1])
def test_an_exported_network_computes_the_same_for_any_batch(threads: int | None) -> None:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            self.inner[1].running_mean.uniform_(-1, 1)

        def forward(self, pictures: Any) -> Any:
            return self.inner(pictures.permute(0, 3, 1, 2).float() / 255)

    torch.manual_seed(0)
    network = Network().eval()
    call = onnx_session(export_onnx(network, (2, 9, 9, 3)), threads)
    for count in (1, 2, 5):
        pictures = np.random.default_rng(count).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
        np.testing.assert_allclose(
            call(pictures), network(torch.from_numpy(pictures)).detach().numpy(), atol=1e-6
        )


def test_batches_side_by_side_keep_their_order_and_raise_what_a_batch_raises() -> None:
    import torch

    both = threading.Barrier(2, timeout=30)

    def call(batch: int) -> tuple[int, bool]:
        both.wait()  # passes only where two are at work at once
        return batch, torch.is_inference_mode_enabled()

    assert map_batches(in_inference_mode(call, 2), range(6), 2) == [(i, True) for i in range(6)]
    with pytest.raises(ZeroDivisionError):
        map_batches(lambda batch: 1 // batch, [1, 0], 2)


def test_an_array_is_made_once_and_again_when_its_file_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return np.arange(6.0).reshape(2, 3)

    for _ in range(2):
        np.testing.assert_array_equal(load_or_make_array("numbers", make), np.arange(6.0).reshape(2, 3))
    (file,) = (tmp_path / "mm-features").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert load_or_make_array("numbers", make).shape == (2, 3)
    assert len(made) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # not a folder
    assert load_or_make_array("numbers", make).shape == (2, 3)
