"""Forgetting and upkeep of feature tables that several versions share."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.features.versions import VersionWriter
from mm_resources.maintenance import lineage_replays
from mm_resources.maintenance.lineage_replays import remove_replayed, replay_tables
from mm_resources.maintenance.pin_updates import move_pins
from mm_resources.maintenance.upkeep import upkeep
from mm_resources.registry.pins import Pin, pin_tag
from tests.resources.features.test_versions import ANY, Rows, Sample, content, pinned, samples, words, write

NOW = timedelta(0)
WORD = "xylophonic"


def cell(number: int) -> Cell:
    return Cell("d", f"v{number}", "text")


def publish(catalog: Catalog, number: int, rows: dict[int, Sample], base: int | None, name: str = "t") -> Pin:
    """Publish a version on top of another one's table."""
    own, pins = cell(number), catalog.registry.pins
    sources = [{"name": "text", "modality": "text", "uri": "/data/*.txt", "allow_empty": True}]
    spec = {"name": "d", "version": own.version, "sources": sources}
    catalog.registry.register(parse_spec(json.dumps(spec), "test"))
    at, before = pins.next_number(own), pins.get(cell(base)) if base is not None else None
    bases = [before.primary] if before else []
    found = write(catalog.features, name, Rows(rows, own.version, number), *bases, bounds=ANY)
    table = pinned(catalog.features, found, pin_tag(own.version, at, found.lance_version))
    pin = Pin(at, "d", own.version, "text", "run", f"2026-01-0{number}", "data", [table], {})
    pins.publish(own, pin)
    return pin


def published(catalog: Catalog, number: int) -> list[dict[str, Any]]:
    pin = catalog.registry.pins.get(cell(number))
    assert pin is not None
    found = content(catalog.features, pin.primary.table, pin.primary.lance_version)
    assert catalog.features.measure(pin.primary.table, pin.primary.lance_version) == (
        pin.primary.rows,
        pin.primary.digest,
    )
    return found


def holding(catalog: Catalog, word: str) -> list[Path]:
    folder = Path(catalog.store.path("features"))
    return [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def versions(catalog: Catalog) -> dict[int, dict[int, Sample]]:
    """Publish five versions: a chain of three, a sibling of the second, and one that is written whole."""
    first = samples(60) | {7: (0, "a", f"a {WORD} word")}
    second = first | {8: (2, "a", "words new")}
    third = {key: sample for key, sample in second.items() if key != 7} | {9: (3, "b", "words newer")}
    found = {1: first, 2: second, 3: third, 4: first | {50: (4, "c", "words")}, 5: samples(6)}
    for number, base in ((1, None), (2, 1), (3, 2), (4, 1)):
        publish(catalog, number, found[number], base)
    publish(catalog, 5, found[5], None, "own")
    return found


def forget(catalog: Catalog, receipt: Receipt) -> None:
    replay_tables(catalog, receipt)
    move_pins(catalog, receipt)
    remove_replayed(catalog, receipt)


def receipt_of(key: int) -> Receipt:
    (table,) = Rows({key: (0, "a", "x")}, "v1").rows()
    return Receipt("r", "x", "2026-01-01", samples=table["sample_id"].to_pylist())


def dying(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """Return a function that raises at the end of its last call, like a kill."""
    calls: list[int] = []

    def die(*args: Any, **more: Any) -> Any:
        result = real(*args, **more)
        calls.append(1)
        if len(calls) == times:
            raise KeyboardInterrupt
        return result

    return die


@pytest.mark.parametrize(
    "killed",
    [
        "",
        pytest.param("second version", marks=pytest.mark.slow),
        "before the pins",
        "between the pins",
        pytest.param("before the removal", marks=pytest.mark.slow),
    ],
)
def test_all_versions_are_replayed_without_the_sample(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    expected = versions(catalog)
    before = {number: published(catalog, number) for number in expected}
    gone = receipt_of(7)
    assert holding(catalog, WORD), "also in the base of the third version, which has lost the row"
    steps = {
        "second version": (VersionWriter, "write", 2),
        "before the pins": (lineage_replays, "_replay", 1),
        "between the pins": (type(catalog.registry.pins), "replace", 2),
    }
    if killed in steps:
        owner, name, times = steps[killed]
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dying(getattr(owner, name), times))
            with pytest.raises(KeyboardInterrupt):
                forget(catalog, gone)
    elif killed:
        replay_tables(catalog, gone)
        move_pins(catalog, gone)
    forget(catalog, gone)
    for number in expected:
        assert published(catalog, number) == [row for row in before[number] if row["key"] != "7"]
    assert holding(catalog, WORD) == []
    pins = {number: catalog.registry.pins.get(cell(number)) for number in expected}
    tables = {number: pin.primary.table for number, pin in pins.items() if pin}
    assert "t" not in tables.values()
    assert tables[5] == "own", "a table without the sample stays"
    if killed != "between the pins":
        assert len(set(tables.values())) == 2, "the versions share a table again"
    upkeep(catalog, NOW)
    for number, pin in pins.items():
        assert pin is not None
        assert len(published(catalog, number)) == pin.primary.rows
        assert words(catalog.features, pin.primary.table, pin.primary.lance_version, WORD) == set()
    publish(catalog, 6, expected[3], 3)
    assert len(published(catalog, 6)) == len(expected[3])


def test_an_index_is_built_again(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_indexes, "EXACT_ROWS", 1_000)
    publish(catalog, 1, samples(1_500), None)
    publish(catalog, 2, samples(1_500) | {3: (2, "a", "x")}, 1)
    forget(catalog, receipt_of(7))
    for number in (1, 2):
        pin = catalog.registry.pins.get(cell(number))
        assert pin is not None
        table = pin.primary
        assert (table.rows, table.index) == (1_499, vector_indexes.GRAPH)
        assert min(catalog.features.recall(table.table, table.lance_version, table.index)) >= 0.95


def test_a_candidate_that_nobody_published_is_forgotten_too(catalog: Catalog) -> None:
    publish(catalog, 1, samples(20), None)
    write(catalog.features, "candidate", Rows({7: (0, "a", f"a {WORD} word")}, "v2"))
    assert holding(catalog, WORD)
    forget(catalog, receipt_of(7))
    assert holding(catalog, WORD) == []


def test_upkeep_leaves_what_any_pin_names(catalog: Catalog) -> None:
    expected = versions(catalog)
    before = {number: published(catalog, number) for number in expected}
    pin = catalog.registry.pins.get(cell(1))
    assert pin is not None
    # A candidate on top of the first version, one whose pin another run took, and one in a table of its own.
    lost = write(catalog.features, "x", Rows(samples(61), "v9", 9), pin.primary)
    catalog.features.tag("t", lost.lance_version, pin_tag("v1", 1, lost.lance_version))
    waiting = write(catalog.features, "x", Rows(samples(62), "v9", 9), pin.primary)
    catalog.features.tag("t", waiting.lance_version, pin_tag("v2", 2, waiting.lance_version))
    write(catalog.features, "alone", Rows(samples(5), "v9", 9))
    size = len(list(Path(catalog.store.path("features")).rglob("*")))
    upkeep(catalog, timedelta(days=7))
    assert catalog.features.exists("alone")
    upkeep(catalog, NOW)
    assert {number: published(catalog, number) for number in expected} == before
    assert not catalog.features.exists("alone")
    assert not catalog.features.has("t", lost.lance_version)
    assert catalog.features.has("t", waiting.lance_version), "its run may be about to publish"
    assert len(list(Path(catalog.store.path("features")).rglob("*"))) < size
    hashes = Path(catalog.store.path("features/t.lance/_hashes"))
    for path in hashes.rglob("*.*"):
        assert not path.is_file() or (hashes.parent / path.relative_to(hashes)).exists(), path


def test_moving_tags_name_what_is_published(catalog: Catalog) -> None:
    versions(catalog)
    upkeep(catalog, NOW)
    found = catalog.features.dataset("t", published_version(catalog, 1)).tags.list()
    named = {tag: int(each["version"]) for tag, each in found.items() if tag.startswith("published")}
    assert named == {
        "published": published_version(catalog, 4),
        **{f"published-v{number}": published_version(catalog, number) for number in (1, 2, 3, 4)},
    }
    table = catalog.features.database.open_table("t")
    table.checkout("published-v2")
    assert table.count_rows() == 60
    publish(catalog, 1, samples(3), None, "moved")
    upkeep(catalog, NOW)
    assert "published-v1" not in catalog.features.dataset("t", published_version(catalog, 2)).tags.list()
    assert "published-v1" in catalog.features.dataset("moved", published_version(catalog, 1)).tags.list()


def published_version(catalog: Catalog, number: int) -> int:
    pin = catalog.registry.pins.get(cell(number))
    assert pin is not None
    return pin.primary.lance_version
