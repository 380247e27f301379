"""Train a linear probe on published features: python examples/linear_probe.py demo@v1 image

The features are computed once; an experiment starts here. What it was trained on stands in the manifest beside the weights,
and `FeatureStore.training_set(manifest=...)` brings the same rows back, whatever is published later.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mm_resources import FeatureStore


def train(
    features: FeatureStore, dataset_version: str, modality: str, epochs: int = 20, seed: int = 0
) -> tuple[torch.nn.Linear, list[str], dict]:
    """A linear layer from vectors to labels, the labels by its outputs, and the manifest of the rows that it saw."""
    torch.manual_seed(seed)
    rows = features.training_set(
        dataset_version, modality=modality, split="train", where="label IS NOT NULL", columns=["label"]
    )
    labels = sorted(set(rows.to_polars()["label"]))
    probe = torch.nn.Linear(rows.manifest["tables"][0]["dimension"], len(labels))
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
    loader = rows.to_torch(batch_size=64, shuffle=True, seed=seed)
    for _ in range(epochs):
        for batch in loader:  # streamed: no more than a window of rows lies in memory
            target = torch.tensor([labels.index(label) for label in batch["label"]])
            loss = torch.nn.functional.cross_entropy(probe(batch["vector"]), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return probe, labels, rows.manifest


def accuracy(
    features: FeatureStore,
    dataset_version: str,
    modality: str,
    probe: torch.nn.Linear,
    labels: list[str],
    split: str,
) -> float:
    """Share of a split's rows that the probe labels right."""
    rows = features.training_set(
        dataset_version, modality=modality, split=split, where="label IS NOT NULL", columns=["label"]
    )
    right = seen = 0
    with torch.no_grad():
        for batch in rows.to_torch():
            found = probe(batch["vector"]).argmax(dim=1)
            right += sum(
                labels[place] == label for place, label in zip(found.tolist(), batch["label"], strict=True)
            )
            seen += len(batch["label"])
    return right / seen if seen else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_version", metavar="DATASET@VERSION")
    parser.add_argument("modality")
    parser.add_argument("--out", type=Path, help="folder for probe.pt and manifest.json")
    asked = parser.parse_args()
    store = FeatureStore.open()  # MM_STORE, or .mm/store
    probe, labels, manifest = train(store, asked.dataset_version, asked.modality)
    print(f"{manifest['rows']} rows of {asked.dataset_version} {asked.modality}, labels: {', '.join(labels)}")
    for split in ("train", "validation", "test"):
        print(
            f"{split}: {accuracy(store, asked.dataset_version, asked.modality, probe, labels, split):.3f} right"
        )
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        torch.save({"state": probe.state_dict(), "labels": labels}, asked.out / "probe.pt")
        (asked.out / "manifest.json").write_text(json.dumps(manifest, indent=1))
