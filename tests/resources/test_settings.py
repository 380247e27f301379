"""Locations as a user gives them."""

from __future__ import annotations

import os

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.settings import absolute


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
