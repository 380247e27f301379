"""The examples of fine-tuning: killed, resumed under another number of ranks, their rows counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from mm_resources.retrieval.feature_store import FeatureStore
from tests.processes import ROOT, free_port
from tests.resources.media_sets import COLOURS

EXAMPLES = ROOT / "examples"


def counted_rows(folder: Path, legs: list[int]) -> Counter[str]:
    """Count the rows of all steps that the checkpoint has; of a leg, what came after its last checkpoint is repeated."""
    found: Counter[str] = Counter()
    for leg, steps in enumerate(legs):
        for log in folder.glob(f"rows-{leg}-*.jsonl"):
            lines = log.read_text().splitlines(keepends=True)
            notes = [json.loads(line) for line in lines if line.endswith("\n")]
            found.update(row for note in notes if note["step"] <= steps for row in note["rows"])
    return found


def test_a_run_that_is_broken_off_sees_each_row_once_an_epoch(
    things: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, on colours alone; the scripts themselves run in the slow test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import checkpoints
    import torch

    rows = things.training_set("things@v1", modality="image", split="train")
    calls = []

    def prepare(picture: Any) -> Any:
        calls.append(1)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return picture.float().mean(dim=(1, 2)) / 255

    torch.manual_seed(0)
    head = torch.nn.Linear(3, 2)
    arguments: dict[str, Any] = {"epochs": 3, "batch_size": 4, "save_steps": 3, "learning_rate": 0.1}
    with pytest.raises(KeyboardInterrupt):
        checkpoints.fit(rows, head, prepare, tmp_path, **arguments)
    state = checkpoints.fit(rows, torch.nn.Linear(3, 2), prepare, tmp_path, **{**arguments, "batch_size": 7})
    assert len(state["legs"]) == 2
    known = rows.to_arrow()["feature_id"].to_pylist()
    assert counted_rows(tmp_path, state["legs"]) == dict.fromkeys(known, 3)
    head.load_state_dict(state["head"])
    test = things.training_set("things@v1", modality="image", split="test")
    assert checkpoints.accuracy(test, head, prepare) == 1
    assert things.trace(rows.record())["digest"] == state["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_the_scripts_go_on_under_another_number_of_ranks(
    things: FeatureStore, tmp_path: Path, modality: str
) -> None:
    """Two ranks are killed after some checkpoints; three, then one, go on."""
    script = EXAMPLES / {"image": "fine_tune_pictures.py", "audio": "fine_tune_sounds.py"}[modality]
    environment = {
        **os.environ, "MM_STORE": things.catalog.store.root, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def start(ranks: int, epochs: int) -> subprocess.Popen[str]:
        torchrun = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port",
            str(free_port()),
        ]  # fmt: skip
        words = [
            str(script),
            "things@v1",
            "--out",
            str(tmp_path / "run"),
            "--epochs",
            str(epochs),
            "--save-steps",
            "2",
        ]
        return subprocess.Popen(
            [*torchrun, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    killed = start(2, 1_000)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert killed.poll() is None, killed.stdout and killed.stdout.read()
        time.sleep(0.05)
    # The ranks have sessions of their own; all are stopped first, so that none outlives another.
    everyone = [psutil.Process(killed.pid), *psutil.Process(killed.pid).children(recursive=True)]
    for process in everyone:
        process.suspend()
    for process in everyone:
        process.kill()
    killed.wait()
    psutil.wait_procs(everyone)
    import torch

    begun = torch.load(tmp_path / "run" / "checkpoint.pt")
    epochs = begun["loader"]["epoch"] + 2
    for ranks, until in ((3, epochs), (1, epochs + 4)):
        done = start(ranks, until)
        output, _ = done.communicate(timeout=300)
        assert done.returncode == 0, output
    state = torch.load(tmp_path / "run" / "checkpoint.pt")
    rows = things.training_set("things@v1", modality=modality, split="train", where="label IS NOT NULL")
    known = rows.to_arrow()["feature_id"].to_pylist()
    assert counted_rows(tmp_path / "run", state["legs"]) == dict.fromkeys(known, epochs + 4)
    share = re.search(r"test: ([\d.]+) of 10 right", output)
    assert share is not None
    assert float(share[1]) == 1
    found = things.trace(state["digest"])
    assert {row["label"] for row in found["samples"]} <= (
        COLOURS.keys() if modality == "image" else {"low", "high"}
    )
