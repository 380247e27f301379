"""What was measured on this machine, kept and taken; with the smallest embedder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.modalities import get
from mm_resources.compute import calibration
from mm_resources.compute.calibration import Setting, calibrate, stored_setting
from mm_resources.resources import EmbedderResource, default_embedder

NAME = "wordllama"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Setting]]:
    path = tmp_path_factory.mktemp("calibration") / "home" / "calibration.json"
    (found,) = calibrate(path, [NAME], "auto", seconds=0.05)
    return path, found


def test_one_setting_is_kept_and_it_is_no_slower_than_the_default(tried: tuple[Path, list[Setting]]) -> None:
    path, found = tried
    (kept,) = [setting for setting in found if setting.kept]
    assert found[0].batch_size == create(NAME).batch_size
    assert kept.rate >= found[0].rate > 0
    assert len({(setting.batch_size, setting.threads) for setting in found}) == len(found) > 3
    assert stored_setting(path, NAME) == kept
    assert stored_setting(path, "minilm") is None


def test_what_is_hardly_faster_is_not_taken() -> None:
    def found(*rates: float) -> int:
        return calibration._best(
            [Setting(NAME, "float32", i, 1, rate) for i, rate in enumerate(rates)]
        ).batch_size

    assert (found(100, 104, 90), found(100, 120, 130, 90)) == (0, 2)


def test_later_runs_take_it_and_no_fingerprint_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "of-this-machine.json"
    monkeypatch.setenv("MM_CALIBRATION", str(path))
    resource = EmbedderResource(embedder="minilm", device="cpu", num_cpus=4)
    before = resource.open()
    assert (before.batch_size, before.threads) == (create("minilm").batch_size, 4)
    calibration._save(path, Setting("minilm", before.precision, 7, 2, 100.0, kept=True))
    after = resource.open()
    assert (after.batch_size, after.threads, after.fingerprint) == (7, 2, before.fingerprint)
    # What the configuration says stands above it, and a copy takes no more cores than it is given.
    said = EmbedderResource(embedder="minilm", device="cpu", num_cpus=1, batch_size=5).open()
    assert (said.batch_size, said.threads) == (5, 1)
    assert default_embedder(get("text")).model_copy(update={"device": "cuda"}).open().batch_size != 7


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": 1}'])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    assert stored_setting(path, NAME) is None
    calibration._save(path, Setting(NAME, "float32", 9, 1, 1.0))
    assert stored_setting(path, NAME) == Setting(NAME, "float32", 9, 1, 1.0)


def test_other_machines_and_other_shapes_of_the_file_are_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calibration.json"
    calibration._save(path, Setting(NAME, "float32", 9, 1, 1.0))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(calibration, "machine", lambda: "another processor")
        assert stored_setting(path, NAME) is None
        calibration._save(path, Setting(NAME, "float32", 3, 1, 1.0))
    assert stored_setting(path, NAME) == Setting(NAME, "float32", 9, 1, 1.0)
    whole = json.loads(path.read_text())
    for here in whole.values():
        here["settings"][f"{NAME} float32"]["colour"] = "red"
    path.write_text(json.dumps(whole))
    assert stored_setting(path, NAME) is None
