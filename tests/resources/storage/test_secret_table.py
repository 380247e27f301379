"""The table of a store that holds secrets."""

from __future__ import annotations

from typing import Any

import pytest

from mm_resources.registry.registry import Registry
from mm_resources.storage.secret_table import SecretTable


def test_values_that_lie_within_each_other_or_within_references(registry: Registry) -> None:
    table = SecretTable(registry.store)
    known = {"token": "${file:user}", "S3CRET99": "${file:token}", "S3CRET": "${file:short}"}
    name = table.reference("http://h/a?x=S3CRET99&y=token&z=S3CRET", known)
    assert table._waiting[name] == "http://h/a?x=${file:token}&y=${file:user}&z=${file:short}"


def test_rows_are_looked_up_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read = SecretTable._read
    monkeypatch.setattr(SecretTable, "_read", lambda table, names: reads.append(0) or read(table, names))
    table = SecretTable(registry.store)
    names = [table.reference(f"http://h/{i}?sig=S") for i in range(20)]
    table.save()
    assert len(reads) == 1
    assert len(table.reveal(names)) == 20
