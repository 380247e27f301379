"""Weight files of packages of third parties are held against pinned sums, before anything is computed with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from py3langid import langid

from mm_assets.operations import doctor
from mm_embed_kernels import transcribers
from mm_embed_kernels.embedders import create, embedders
from mm_embed_kernels.embedders.wordllama import WordLlama
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.inference import weights
from mm_embed_kernels.inference.weight_sums import WEIGHT_SUMS
from mm_embed_kernels.signals import speech

ROOT = Path(__file__).parents[3]


def pinned_files() -> dict[Path, str]:
    return {
        Path(str(distribution(package).locate_file(name))): pinned
        for package, sums in WEIGHT_SUMS.items()
        for name, pinned in sums.items()
    }


def test_sums_are_those_that_another_program_computes() -> None:
    files = pinned_files()
    program = (
        "import hashlib, sys; [print(hashlib.sha256(open(n, 'rb').read()).hexdigest()) for n in sys.argv[1:]]"
    )
    command = ["sha256sum"] if shutil.which("sha256sum") else [sys.executable, "-c", program]
    answer = subprocess.run([*command, *files], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in answer.splitlines()] == list(files.values())


def test_notice_lists_the_same_files_and_versions() -> None:
    text = (ROOT / "NOTICE").read_text("utf-8")
    listed = dict(re.findall(r"^  ([0-9a-f]{64})  (\S+)$", text, re.MULTILINE))
    assert listed == {pinned: name for sums in WEIGHT_SUMS.values() for name, pinned in sums.items()}
    versions = dict(re.findall(r"^([a-z0-9-]+) (\d[\w.]*)", text, re.MULTILINE))
    assert versions == {package: distribution(package).version for package in WEIGHT_SUMS}


def test_every_model_that_comes_with_a_package_is_pinned() -> None:
    own = [create(name) for name, kind in embedders().items() if not kind.takes_model]
    files = {path for model in own for path in model.weights}
    files |= {path for name in transcribers.transcribers() for path in transcribers.create(name).weights}
    files |= {speech.weights(), Path(langid.__file__).parent / langid.MODEL_FILE}
    assert files == set(pinned_files())


def damaged_wordllama(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the package's files with one bit of the weights flipped, and make the embedder find the copy."""
    (package,) = {path.parents[1] for path in WordLlama().weights}
    copy = folder / "site-packages" / "wordllama"
    shutil.copytree(package, copy)
    path = copy / "weights" / "l2_supercat_256.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = SimpleNamespace(origin=str(copy / "__init__.py"))
    monkeypatch.setattr(weights, "find_spec", lambda _: found)
    return path


def test_a_flipped_bit_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged_wordllama(tmp_path, monkeypatch)
    with pytest.raises(UserError) as refused:
        _ = WordLlama().fingerprint
    line = str(refused.value)
    assert line.startswith(
        f"embedder wordllama: weight file {path} is not that of the release of wordllama that is pinned"
    )
    assert "64b47a2dc493" in line
    assert line.endswith("pip install --force-reinstall --no-deps wordllama==0.4.0.post1")
    assert "\n" not in line
    # Ray's nodes are compared with the driver by this, before any of them loads a model.
    with pytest.raises(UserError, match="is not that of the release"):
        weights.installed_hash("wordllama", WordLlama().weights)


def test_the_detection_of_speech_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "silero_vad" / "data" / speech.weights().name
    path.parent.mkdir(parents=True)
    path.write_bytes(speech.weights().read_bytes() + b"\0")
    monkeypatch.setattr(speech, "weights", lambda: path)
    with pytest.raises(
        UserError, match=r"speech detection: weight file .* is not that of the release of silero-vad"
    ):
        speech._session.__wrapped__()


def test_the_doctor_checks_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor._run_check("weights", doctor._check_weights)
    assert (finding.ok, finding.finding) == (
        True,
        "15 files of 8 packages are those that are pinned (NOTICE)",
    )
    damaged_wordllama(tmp_path, monkeypatch)

    class Copied:
        def locate_file(self, name: str) -> Path:
            return tmp_path / "site-packages" / name

    monkeypatch.setattr(
        doctor, "distribution", lambda name: Copied() if name == "wordllama" else distribution(name)
    )
    finding = doctor._run_check("weights", doctor._check_weights)
    assert not finding.ok
    assert "the package wordllama: weight file" in finding.finding


def test_models_that_the_user_names_have_no_sum(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    assert len(weights.installed_hash("embedder st", (path,))) == 64


def test_the_hash_of_weights_depends_on_content_and_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, text in zip(paths, ("one", "two", "one"), strict=True):
        path.write_text(text)
    one, two, copy = paths
    assert weights.installed_hash("m", (one, two)) != weights.installed_hash("m", (two, one))
    assert weights.installed_hash("m", (one, two)) == weights.installed_hash("m", (copy, two))
    assert weights.installed_hash("m", (one,)) != weights.installed_hash("m", (two,))
