"""The loader in the hands of Lightning and of Hugging Face's Trainer: each row once an epoch, and labels are learned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mm_resources.retrieval.feature_store import FeatureStore


def colour_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "x": row["media"].float().mean(dim=(1, 2)) / 255,
        "labels": int(row["label_id"]),
        "id": row["feature_id"],
    }


def colours(things: FeatureStore, batch_size: int | None, **more: Any) -> tuple[Any, list[str]]:
    chosen = things.training_set("things@v1", modality="image", split="train")
    loader = chosen.to_torch(batch_size, shuffle=True, decode="torch", transform=colour_of, **more)
    return loader, chosen.to_arrow()["feature_id"].to_pylist()


def test_lightning(things: FeatureStore, tmp_path: Path) -> None:
    import lightning
    import torch

    seen: Counter[str] = Counter()

    class Probe(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            seen.update(batch["id"])
            return torch.nn.functional.cross_entropy(self.head(batch["x"]), batch["labels"])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 0.1)

    torch.manual_seed(0)
    loader, known = colours(things, 7)
    probe = Probe()
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(probe, loader)
    assert seen == dict.fromkeys(known, 3)
    assert trainer.global_step == 3 * len(loader)
    loader.set_epoch(3)
    for batch in loader:
        assert (probe.head(batch["x"]).argmax(dim=1) == batch["labels"]).all()


def test_the_trainer_of_hugging_face(
    things: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import torch
    from transformers import Trainer, TrainingArguments

    seen: Counter[str] = Counter()

    class Probe(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.head(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        seen.update(row["id"] for row in rows)
        return {
            "x": torch.stack([row["x"] for row in rows]),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    loader, known = colours(things, None, world_size=1)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=3, per_device_train_batch_size=7, learning_rate=0.1,
        report_to=[], save_strategy="no", use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    model = Probe()
    trained = Trainer(model, arguments, train_dataset=loader, data_collator=collate).train()
    assert seen == dict.fromkeys(known, 3)
    assert trained.global_step == 3 * -(-len(known) // 7)
