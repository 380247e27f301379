"""Folders of processes that were killed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mm_embed_kernels.sandbox.scratch import Scratch


def test_only_folders_without_a_process_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "mm-scratch-killed/inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    first = Scratch()
    second = Scratch()
    names = {"other", os.path.basename(first.path), os.path.basename(second.path)}
    assert set(os.listdir(tmp_path)) == names
    first.remove()
    second.remove()
    assert os.listdir(tmp_path) == ["other"]
