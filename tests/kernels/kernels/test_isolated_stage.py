"""Models that really die, hang and balloon: one item costs one item."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.kernels import isolated_stage as isolated_module
from mm_embed_kernels.kernels.base import REQUEST
from mm_embed_kernels.kernels.embed import EmbedKernel, InferStage
from mm_embed_kernels.kernels.isolated_stage import IsolatedStage
from mm_embed_kernels.media import canaries
from mm_embed_kernels.sandbox.tables import to_bytes
from tests.kernels.kernels.test_kernels import Shelf


class Mortal(Embedder):
    """A text model that does to its process what a text says."""

    name = "mortal"
    modality = "text"
    dimension = 2
    weights = (Path(__file__),)
    preprocessing = {}
    loading = ""

    def load(self) -> None:
        _obey(self.loading)

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        for text in inputs:
            _obey(text)
        return np.array([[len(text), os.getpid()] for text in inputs], np.float64)


def _obey(order: str) -> None:
    match order:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "raise":
            raise RuntimeError("no such weights")


@pytest.fixture
def stage() -> Iterator[Any]:
    yield lambda embedder=None, **settings: IsolatedStage(
        InferStage(embedder or Mortal(), EmbedKernel(Mortal(), Shelf()).result, _ROWS), **settings
    )
    isolated_module._processes().close()


_ROWS = EmbedKernel(Mortal(), Shelf()).infer


def texts(*items: str) -> pa.Table:
    return pa.Table.from_pylist(
        [{"key": f"k{i}", "text": text} for i, text in enumerate(items)], schema=REQUEST
    )


@pytest.mark.parametrize(
    ("order", "error_class", "message", "retryable"),
    [
        ("segfault", "model_crash", "SIGSEGV", False),
        ("exit", "model_crash", "exit code 3", False),
        ("killed", "model_crash", "SIGKILL", True),
        ("hang", "timeout", "longer than 4 s", True),
        ("raise", "embedding_error", "no such weights", False),
    ],
)
def test_a_model_that_dies_costs_the_guilty_item(
    stage: Any, order: str, error_class: str, message: str, retryable: bool
) -> None:
    tried = stage(seconds=2.0) if order == "hang" else stage()
    tried.setup()
    rows = tried.run(texts("a", "bb", order, "ccc")).to_pylist()
    assert [row["key"] for row in rows] == ["k0", "k1", "k2", "k3"]
    assert [row["error_class"] for row in rows] == [None, None, error_class, None]
    assert message in rows[2]["message"]
    assert rows[2]["retryable"] == retryable
    assert rows[0]["vector"][1] > 0


def test_a_model_stays_loaded_from_stage_to_stage(stage: Any) -> None:
    first, again = (stage() for _ in range(2))
    vectors = []
    for each in (first, again):
        each.setup()
        vectors.append(each.run(texts("a"))["vector"].to_pylist())
    assert vectors[0] == vectors[1], "another process has another number"


@pytest.mark.parametrize("seconds", [2.0, pytest.param(180.0, marks=pytest.mark.slow)])
def test_a_batch_may_wait_for_minutes(stage: Any, seconds: float) -> None:
    """The model's process is stopped, as by a machine that is out of cores: time that is not its own."""
    tried, others = stage(seconds=0.5 if seconds < 10 else 30.0), set(psutil.Process().children())
    tried.setup()
    started = set(psutil.Process().children()) - others
    (child,) = (item for item in started if "spawn_main" in " ".join(item.cmdline()))
    child.suspend()
    timer = threading.Timer(seconds, child.resume)
    timer.start()
    rows = tried.run(texts("a", "bb", "ccc")).to_pylist()
    timer.join()
    assert [row["error_class"] for row in rows] == [None] * 3
    assert child.is_running(), "the process is the same one"


@pytest.mark.parametrize(
    ("loading", "said"),
    [("segfault", "loading the model ended its process.*SIGSEGV"), ("raise", "no such weights")],
)
def test_a_model_that_cannot_be_loaded_ends_the_run(stage: Any, loading: str, said: str) -> None:
    embedder = Mortal()
    embedder.loading = loading
    with pytest.raises(RuntimeError, match=said):
        stage(embedder).setup()


def test_a_model_that_dies_of_everything_ends_the_run(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "WORDS", "segfault")  # a harmless text kills it as well
    monkeypatch.setattr(isolated_module, "_MAX_DEATHS", 3)
    with pytest.raises(RuntimeError, match="3 times in a row"):
        stage().run(texts(*["exit"] * 7))


def test_inputs_that_kill_a_model_in_a_row_cost_themselves(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated_module, "_MAX_DEATHS", 3)
    rows = stage().run(texts(*["exit", "killed"] * 3, "a")).to_pylist()
    assert [row["error_class"] for row in rows] == ["model_crash"] * 6 + [None]


def test_a_slice_travels_alone(stage: Any) -> None:
    """Blocks reach a stage as slices of a larger table."""
    assert len(to_bytes(texts(*["x" * 1000] * 100).slice(3, 1))) < 10_000
    assert stage().run(texts("a", "bb", "ccc").slice(1, 1))["key"].to_pylist() == ["k1"]
