"""A model under an attacker's control: it reaches its weights and caches, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.kernels import isolated_stage
from mm_embed_kernels.kernels.embed import EmbedKernel, InferStage
from mm_embed_kernels.kernels.isolated_stage import IsolatedStage
from mm_embed_kernels.sandbox import confinement
from mm_embed_kernels.sandbox.decoder_process import decoder_environment
from mm_embed_kernels.sandbox.model_process import model_environment
from tests.kernels.kernels.test_isolated_stage import texts
from tests.kernels.kernels.test_kernels import Shelf
from tests.kernels.sandbox import hostile

pytestmark = pytest.mark.skipif(
    bool(confinement.missing_layers()), reason=f"this kernel lacks {', '.join(confinement.missing_layers())}"
)


class HostileModel(Embedder):
    """A text model that tries what a text names, and fails with what was not refused."""

    name = "hostile"
    modality = "text"
    dimension = 2
    weights = (Path(__file__),)
    preprocessing = {}
    parent = 0
    folder = ""
    port = 0

    def load(self) -> None:
        assert self.weights[0].read_bytes()
        scratch = Path(os.environ["TMPDIR"]) / "scratch"
        scratch.write_text("a model may write here")
        scratch.unlink()

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        for text in inputs:
            if text == "read":
                passed = hostile.read_files("", b"", [f"{self.folder}/victim"], self.parent)
            elif text == "write":
                passed = [
                    name
                    for name in hostile.write_files("", b"", self.folder)
                    if name != "memory file"  # of its own memory
                ]
            elif text == "reach":
                passed = hostile.reach_others("", b"", self.parent, self.port, f"{self.folder}/agent")
                passed = [name for name in passed if "cores" not in name]
            elif text == "environment":
                passed = [name for name, value in os.environ.items() if value == "s3cr3t"]
            else:
                continue
            raise RuntimeError(f"passed: {passed}")
        return np.ones((len(inputs), 2))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileModel]:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "s3cr3t")
    (tmp_path / "victim").write_text("content")
    made = HostileModel()
    made.parent, made.folder = os.getpid(), str(tmp_path)
    yield made
    isolated_stage.close_models()


def test_the_variables_of_a_model_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "MM_STORE": "s3://KEY:SECRET@host/bucket",
        "MM_STORE_OPTIONS": '{"secret": 1}',
        "HF_ENDPOINT": "https://alice:pw@mirror.example",
        "HF_TOKEN": "hf_1",
        "MM_PRECISION": "float32",
        "TOKENIZERS_PARALLELISM": "false",
        "USER": "alice",
        "XDG_CACHE_HOME": "/caches",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    variables = model_environment("/scratch")
    kept = ("MM_PRECISION", "TOKENIZERS_PARALLELISM", "USER", "XDG_CACHE_HOME")
    assert {name: variables[name] for name in given if name in variables} == {
        name: given[name] for name in kept
    }
    assert variables["TRITON_CACHE_DIR"] == "/caches/mm-features/triton"
    assert variables["ORT_DISABLE_TELEMETRY"] == decoder_environment()["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_model_reaches_nothing_but_its_weights_and_caches(model: HostileModel, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        model.port = server.getsockname()[1]
        kernel = EmbedKernel(model, Shelf())
        stage = IsolatedStage(InferStage(model, kernel.result, kernel.infer))
        stage.setup()
        rows = stage.run(texts("healthy", "read", "write", "reach", "environment")).to_pylist()
    assert rows[0]["status"] == "ok"
    assert [row["message"] for row in rows[1:]] == ["RuntimeError: passed: []"] * 4
    assert (tmp_path / "victim").read_text() == "content"
    assert os.listdir(tmp_path) == ["victim"]
