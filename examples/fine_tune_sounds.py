"""Fine-tune a small head on sounds, on top of their log-mel spectra.

    python examples/fine_tune_sounds.py birds@v1 --out runs/calls
    torchrun --nproc-per-node 2 examples/fine_tune_sounds.py birds@v1 --out runs/calls

The same command goes on after a kill, on as many ranks as it is started with; each sound comes once an epoch.
The digest in the checkpoint leads back to the sounds: `mm trace DIGEST`.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import torch
from checkpoints import accuracy, fit, join_ranks

from mm_resources import FeatureStore

RATE, BANDS = 16_000, 64


@cache
def spectrum() -> Any:
    """Return the transform of sounds to mel spectra, made once in a process."""
    import torchaudio

    return torchaudio.transforms.MelSpectrogram(RATE, n_fft=512, hop_length=160, n_mels=BANDS)


def prepare(sound: torch.Tensor) -> torch.Tensor:
    """Return mean and deviation of each band of a sound, float32 [2 * BANDS]; the sound is mono at 16 kHz."""
    bands = torch.log(spectrum()(sound) + 1e-6)
    return torch.cat([bands.mean(dim=1), bands.std(dim=1, correction=0)])


def main() -> None:
    """Train, or go on; then test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_version", metavar="DATASET@VERSION")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save-steps", type=int, default=10)
    given = parser.parse_args()
    rank, world_size = join_ranks()
    torch.manual_seed(0)
    store = FeatureStore.open()  # MM_STORE, or .mm/store
    rows = {
        split: store.training_set(
            given.dataset_version, modality="audio", split=split, where="label IS NOT NULL"
        )
        for split in ("train", "test")
    }
    if rank == 0:
        rows["train"].record()  # so that `mm trace` finds it by the digest
    head = torch.nn.Sequential(
        torch.nn.LayerNorm(2 * BANDS), torch.nn.Linear(2 * BANDS, 32), torch.nn.ReLU(),
        torch.nn.Linear(32, len(rows["train"].classes)),
    )  # fmt: skip
    state = fit(rows["train"], head, prepare, given.out, given.epochs, 8, given.save_steps, rank, world_size)
    if rank == 0:
        print(f"{state['steps']} steps on {len(rows['train'])} sounds, digest {state['digest']}")
        print(f"test: {accuracy(rows['test'], head, prepare):.3f} of {len(rows['test'])} right")


if __name__ == "__main__":
    main()
