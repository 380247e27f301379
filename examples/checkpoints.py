"""A training loop that is killed and goes on, alone or on several ranks: for the examples beside it.

A checkpoint has the head, the optimizer, what the loader has left of its epoch, and the digest of the
training set: `mm trace DIGEST` leads from it back to the samples.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from mm_resources import TrainingSet


def join_ranks() -> tuple[int, int]:
    """Return rank and number of ranks; of those that ``torchrun`` starts, joined by gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("gloo")
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class Checkpoint:
    """The file of a training run, and beside it the rows that each step has seen.

    Args:
        folder: of the run.
        rank: of this process; rank 0 writes the file.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.rank = folder / "checkpoint.pt", rank
        self.state: dict[str, Any] = torch.load(self.path) if self.path.exists() else {"legs": [], "steps": 0}
        # A leg is what was trained between two starts.
        self.leg, self.taken = len(self.state["legs"]), 0
        self._log = (folder / f"rows-{self.leg}-{rank}.jsonl").open("w")

    def count(self, rows: list[str]) -> None:
        """Note a step and its rows on this rank."""
        self.taken += 1
        self._log.write(json.dumps({"step": self.taken, "rows": rows}) + "\n")

    def save(self, **state: Any) -> None:
        """Write the file, whole or not at all. A row counts once its step is in the file."""
        self._log.flush()
        if distributed.is_initialized():
            distributed.barrier()  # the rows of all ranks are written
        if self.rank == 0:
            legs = [*self.state["legs"][: self.leg], self.taken]
            part = self.path.with_suffix(".part")
            torch.save({**state, "legs": legs, "steps": self.state["steps"] + self.taken}, part)
            os.replace(part, self.path)


def fit(  # noqa: PLR0913 - one for each option of a run
    rows: TrainingSet,
    head: torch.nn.Module,
    prepare: Any,
    folder: Path,
    epochs: int = 3,
    batch_size: int = 8,
    save_steps: int = 10,
    rank: int = 0,
    world_size: int = 1,
    learning_rate: float = 0.01,
) -> dict[str, Any]:
    """Train a head on decoded media; goes on where the checkpoint of `folder` stopped.

    Args:
        rows: with labels.
        head: takes what `prepare` makes, [rows, ...], and returns a number for each class.
        prepare: function of a decoded medium; runs in the loader.
        save_steps: steps from one checkpoint to the next.

    Returns:
        The last checkpoint.
    """

    def row_of(row: dict[str, Any]) -> dict[str, Any]:
        return {"x": prepare(row["media"]), "y": int(row["label_id"]), "id": row["feature_id"]}

    checkpoint = Checkpoint(folder, rank)
    loader = rows.to_torch(
        batch_size, shuffle=True, rank=rank, world_size=world_size, decode="torch", transform=row_of
    )
    optimizer = torch.optim.Adam(head.parameters(), learning_rate)
    if "head" in checkpoint.state:
        if checkpoint.state["digest"] != rows.digest:
            raise SystemExit(f"{folder} was trained on other rows: {checkpoint.state['digest']}")
        head.load_state_dict(checkpoint.state["head"])
        optimizer.load_state_dict(checkpoint.state["optimizer"])
        loader.load_state_dict(checkpoint.state["loader"])
    model = torch.nn.parallel.DistributedDataParallel(head) if world_size > 1 else head

    def save() -> None:
        state = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "classes": rows.classes}
        checkpoint.save(**state, loader=loader.state_dict(), digest=rows.digest)

    while loader.state_dict()["epoch"] < epochs:
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            checkpoint.count(batch["id"])
            if checkpoint.taken % save_steps == 0:
                save()
    save()
    state: dict[str, Any] = torch.load(checkpoint.path)
    return state


def accuracy(rows: TrainingSet, head: torch.nn.Module, prepare: Any) -> float:
    """Return the share of rows that a head labels correctly."""
    right = []
    with torch.no_grad():
        for batch in rows.to_torch(decode="torch"):
            outputs = head(torch.stack([prepare(medium) for medium in batch["media"]])).argmax(dim=1)
            right += (outputs == batch["label_id"]).tolist()
    return sum(right) / len(right) if right else float("nan")
