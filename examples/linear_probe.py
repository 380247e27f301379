"""Train a linear probe on published features.

    python examples/linear_probe.py demo@v1 image

Experiments start from features that are computed once. The manifest, saved beside the weights, names the
training rows: `FeatureStore.training_set(manifest=...)` returns the same rows, whatever is published later.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mm_resources import FeatureStore
from mm_resources.retrieval.training_set import TrainingSet


def labelled_rows(features: FeatureStore, dataset_version: str, modality: str, split: str) -> TrainingSet:
    """Return the rows of a split that have a label."""
    return features.training_set(
        dataset_version, modality=modality, split=split, where="label IS NOT NULL", columns=["label"]
    )


def train(
    features: FeatureStore, dataset_version: str, modality: str, epochs: int = 20, seed: int = 0
) -> tuple[torch.nn.Linear, list[str], dict]:
    """Train a linear layer from vectors to labels.

    Returns:
        The layer, the label of each of its outputs, and the manifest of the training rows.
    """
    torch.manual_seed(seed)
    rows = labelled_rows(features, dataset_version, modality, "train")
    labels = sorted(set(rows.to_polars()["label"]))
    probe = torch.nn.Linear(rows.manifest["tables"][0]["dimension"], len(labels))
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
    loader = rows.to_torch(batch_size=64, shuffle=True, seed=seed)
    for _ in range(epochs):
        for batch in loader:  # streamed: memory has one window of rows
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
    """Return the share of a split's rows that the probe labels correctly."""
    rows = labelled_rows(features, dataset_version, modality, split)
    right = seen = 0
    with torch.no_grad():
        for batch in rows.to_torch():
            outputs = probe(batch["vector"]).argmax(dim=1)
            right += sum(
                labels[output] == label
                for output, label in zip(outputs.tolist(), batch["label"], strict=True)
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
    arguments = parser.parse_args()
    store = FeatureStore.open()  # MM_STORE, or .mm/store
    probe, labels, manifest = train(store, arguments.dataset_version, arguments.modality)
    cell = f"{arguments.dataset_version} {arguments.modality}"
    print(f"{manifest['rows']} rows of {cell}, labels: {', '.join(labels)}")
    for split in ("train", "validation", "test"):
        rows = labelled_rows(store, arguments.dataset_version, arguments.modality, split).manifest["rows"]
        share = accuracy(store, arguments.dataset_version, arguments.modality, probe, labels, split)
        print(f"{split}: {share:.3f} of {rows:,} labelled rows right")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        torch.save({"state": probe.state_dict(), "labels": labels}, arguments.out / "probe.pt")
        (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1))
