"""Versions of one table in a bucket: siblings, lost answers, upkeep, a copy under another prefix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mm_resources.catalog import Catalog
from mm_resources.maintenance.upkeep import upkeep
from tests.faulty_proxy import faulty_proxy
from tests.resources.features.test_versions import samples, words
from tests.resources.maintenance.test_lineage_replays import (
    NOW,
    cell,
    forget,
    publish,
    published,
    receipt_of,
)
from tests.s3 import BUCKET, S3, point_at

VERSIONS = {
    1: samples(30),
    2: samples(30) | {3: (2, "a", "words new")},
    3: {key: sample for key, sample in samples(30).items() if key != 8} | {40: (3, "b", "words newer")},
}


def write_versions(catalog: Catalog) -> None:
    publish(catalog, 1, VERSIONS[1], None)
    publish(catalog, 2, VERSIONS[2], 1)
    publish(catalog, 3, VERSIONS[3], 1)


def assert_readable(catalog: Catalog) -> None:
    for number, rows in VERSIONS.items():
        found = published(catalog, number)
        assert {row["key"]: row["text"] for row in found} == {
            str(key): text for key, (_, _, text) in rows.items()
        }
        pin = catalog.registry.pins.get(cell(number))
        assert pin is not None
        assert pin.primary.table == catalog.registry.pins.get(cell(1)).primary.table
        assert words(catalog.features, pin.primary.table, pin.primary.lance_version, "words") == set(
            map(str, rows)
        )


def test_siblings_upkeep_a_copy_and_forgetting(s3: S3) -> None:
    catalog = Catalog.open(f"s3://{BUCKET}/one")
    write_versions(catalog)
    assert_readable(catalog)
    upkeep(catalog, NOW)
    assert_readable(catalog)
    shutil.copytree(s3.folder / BUCKET / "one", s3.folder / BUCKET / "two")
    shutil.rmtree(s3.folder / BUCKET / "one")
    moved = Catalog.open(f"s3://{BUCKET}/two")
    assert_readable(moved)
    publish(moved, 4, VERSIONS[1] | {4: (4, "a", "words")}, 2)
    assert len(published(moved, 4)) == 30
    before = {number: published(moved, number) for number in VERSIONS}
    forget(moved, receipt_of(7))
    for number, rows in before.items():
        assert published(moved, number) == [row for row in rows if row["key"] != "7"]
    assert not s3.keys("two/features/t.lance/")


def test_a_bad_network(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Requests are refused, broken off and repeated, and answers to commits are lost."""
    with faulty_proxy(s3_server.port) as proxy:
        point_at(monkeypatch, s3_server.environment(proxy.endpoint), tmp_path)
        catalog = Catalog.open(f"s3://{BUCKET}/bad")
        publish(catalog, 1, VERSIONS[1], None)
        proxy.share = 0.03
        for number in (2, 3):
            for _ in range(4):
                try:
                    publish(catalog, number, VERSIONS[number], 1)
                except OSError:
                    continue  # the command is run again
                break
        proxy.share = 0
        assert proxy.struck
        assert_readable(catalog)
