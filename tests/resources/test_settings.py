"""Locations as a user gives them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.settings import Settings, absolute


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/store/", "s3://bucket/store"),
        ("abfs://container/store", "az://container/store"),
        ("gcs://bucket/store", "gs://bucket/store"),
        (
            "abfss://container@account.dfs.core.windows.net/store",
            "abfss://container@account.dfs.core.windows.net/store",
        ),
        ("store", os.path.abspath("store")),
        ("~/store", os.path.expanduser("~/store")),
    ],
)
def test_locations(given: str, meant: str) -> None:
    assert absolute(given) == meant


def test_a_password_in_a_location_is_refused() -> None:
    with pytest.raises(UserError, match="contains a password"):
        absolute("s3://key:secret@bucket/store")


def test_the_store_is_found_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MM_STORE", "DAGSTER_HOME", "MM_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    project, below = tmp_path / "project", tmp_path / "project" / "data" / "birds"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Settings.from_environment().store == str(below / ".mm" / "store")
    (project / ".mm" / "store").mkdir(parents=True)
    found = Settings.from_environment()
    assert found.store == str(project / ".mm" / "store")
    assert (found.dagster_home, found.datasets) == (project / ".mm" / "dagster", project / ".mm" / "datasets")
    monkeypatch.setenv("MM_STORE", "elsewhere")
    assert Settings.from_environment().store == str(below / "elsewhere")
    monkeypatch.delenv("MM_STORE")
    monkeypatch.setattr("os.geteuid", lambda: -1)
    assert Settings.from_environment().store == str(below / ".mm" / "store")


@pytest.mark.parametrize(
    "bad", ["javascript:alert(1)", "http://ann:word@mm", "mm.example", "http://mm/?a=b", "http://mm/'"]
)
def test_an_address_for_links_is_one(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_DAGSTER_URL", "http://127.0.0.1:3000/dagster/")
    assert Settings.from_environment().exports()["MM_DAGSTER_URL"] == "http://127.0.0.1:3000/dagster"
    monkeypatch.setenv("MM_DAGSTER_URL", bad)
    with pytest.raises(UserError, match=r"MM_DAGSTER_URL is .*; give an address"):
        Settings.from_environment()
