"""Specs and pins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.registry.registrations import Registration, record_name
from mm_resources.registry.registry import Registry
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.layout import record_layout
from mm_resources.storage.store import Store
from tests.resources.specs import spec_of

# -- specs


def test_register_twice(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    assert registry.register(spec)
    assert not registry.register(spec)
    assert registry.spec("birds", "v1") == spec
    assert registry.datasets() == ["birds@v1"]


@pytest.mark.parametrize(
    "other",
    [
        {"curation": {"rules": {"too_short": {"min_words": 9}}}},
        {"schema": {"stars": "int"}},
        {"splits": {"train": 0.5, "test": 0.5}},
        {
            "splits": {"test": 0.1, "validation": 0.1, "train": 0.8}
        },  # the same shares, but other samples in them
        {"gates": {"max_failed_share": 1.0}},
    ],
    ids=["curation", "schema", "shares", "order of the splits", "gates"],
)
def test_a_version_stays_frozen(registry: Registry, data: Path, other: dict[str, Any]) -> None:
    registry.register(spec_of({"uri": str(data)}))
    with pytest.raises(UserError, match=r"birds@v1 is registered with another spec.*new version"):
        registry.register(spec_of({"uri": str(data)}, **other))
    assert registry.spec("birds", "v1") == spec_of({"uri": str(data)})
    assert registry.register(spec_of({"uri": str(data)}, **other, version="v2"))
    assert registry.datasets() == ["birds@v1", "birds@v2"]


def test_a_later_version_is_proposed_the_last_one_as_its_parent(registry: Registry, data: Path) -> None:
    first, second = spec_of({"uri": str(data)}), spec_of({"uri": str(data)}, version="v2")
    registry.register(first)
    assert registry.proposed_parent(first) is None
    registry.register(second)
    registry.register(spec_of({"uri": str(data)}, name="bees"))
    assert registry.proposed_parent(second) == "v1"
    assert registry.proposed_parent(spec_of({"uri": str(data)}, version="v0")) == "v2"
    following = spec_of({"uri": str(data)}, version="v2", parent="v1")
    assert registry.proposed_parent(following) is None
    assert registry.register(following)
    assert registry.spec("birds", "v2") == following
    with pytest.raises(UserError, match="registered with another spec"):
        registry.register(second)


def test_a_parent_is_not_added_once_the_sources_are_listed(registry: Registry, data: Path) -> None:
    second = spec_of({"uri": str(data)}, version="v2")
    registry.register(spec_of({"uri": str(data)}))
    registry.register(second)
    (data / "a.txt").write_text("a heron")
    assert registry.listings.freeze(second, second.sources[0]) == ""
    with pytest.raises(UserError, match="registered with another spec"):
        registry.register(spec_of({"uri": str(data)}, version="v2", parent="v1"))


def test_exactly_one_of_many_registrations_wins(registry: Registry) -> None:
    barrier = threading.Barrier(8)

    def register(i: int) -> str:
        barrier.wait()
        try:
            return "won" if registry.register(spec_of({"uri": f"/data/{i}"})) else "same"
        except UserError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(register, range(8)))
    assert sorted(outcomes) == ["refused"] * 7 + ["won"]
    assert registry.spec("birds", "v1").sources[0].uri == f"/data/{outcomes.index('won')}"


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            spec_of({"uri": "/x", "modality": "smell"}),
            "source s0: modality 'smell' is not known; there are: auto, audio, document, image, text",
        ),
        (spec_of({"uri": "/x", "format": "xml"}), "no source format is named 'xml'"),
        (spec_of({"uri": "/x.txt", "record": {"text": "t"}}), r"no source kind reads /x\.txt"),
        (
            spec_of({"uri": "/x"}, curation={"rules": {"blurry": {}}}),
            r"curation\.rules\.blurry: no such rule",
        ),
        (
            spec_of({"uri": "/x"}, curation={"rules": {"too_small": {"side": 1}}}),
            r"curation\.rules\.too_small\.side: no such parameter",
        ),
    ],
    ids=["modality", "format", "kind", "rule", "parameter of a rule of another modality"],
)
def test_what_does_not_exist_is_not_registered(registry: Registry, spec: DatasetSpec, line: str) -> None:
    with pytest.raises(UserError, match=line):
        registry.register(spec)
    assert registry.datasets() == []


def test_unknown_versions_name_the_known_ones(registry: Registry, data: Path) -> None:
    with pytest.raises(UserError, match="birds@v9 is not registered; registered are: none"):
        registry.spec("birds", "v9")
    registry.register(spec_of({"uri": str(data)}))
    with pytest.raises(UserError, match="registered are: birds@v1"):
        registry.spec("birds", "v9")


def test_cells(registry: Registry) -> None:
    registry.register(spec_of({"uri": "/x"}, {"uri": "/y", "modality": "image"}))
    registry.register(spec_of({"uri": "/x"}, version="v2"))
    registry.register(spec_of({"uri": "/x", "modality": "auto"}, version="v3"))
    assert registry.cells("birds@v1") == [Cell("birds", "v1", "image"), Cell("birds", "v1", "text")]
    assert registry.cells("birds@v1", "image") == [Cell("birds", "v1", "image")]
    assert registry.cells("birds@v1", ["text", "image"]) == registry.cells("birds@v1")
    assert registry.cells("birds@v1", ["text"]) == [Cell("birds", "v1", "text")]
    assert registry.cells("birds@v1", []) == registry.cells("birds@v1")
    assert registry.cells("birds@v2") == [Cell("birds", "v2", "text")]
    assert registry.cells("birds@v3") == [
        Cell("birds", "v3", name) for name in ("audio", "document", "image", "text", "video")
    ]
    with pytest.raises(UserError, match="declares no modality 'image'; it declares: text"):
        registry.cells("birds@v2", "image")
    with pytest.raises(UserError, match="declares no modality 'image'; it declares: text"):
        registry.cells("birds@v2", ["text", "image"])
    with pytest.raises(UserError, match="not DATASET@VERSION"):
        registry.cells("birds")


# -- pins

CELL = Cell("birds", "v1", "text")


def pinned(embedder: str = "minilm", primary: bool = True) -> PinnedTable:
    return PinnedTable(
        embedder=embedder, settings={"batch_size": 8}, fingerprint="f" * 64, weights_hash="w", preprocessing={"pooling": "mean"}, primary=primary,
        table="t", lance_version=3, tag="pin-1", rows=10, dimension=384, space="s", index="exact", digest="d", recall=None,
    )  # fmt: skip


def pin(number: int, run_id: str = "r1") -> Pin:
    return Pin(
        number=number, dataset="birds", version="v1", modality="text", run_id=run_id, published_at="2024-01-01T00:00:00+00:00", data_version="v",
        tables=[pinned("other", primary=False), pinned()], accounting={"published": 10}, stages={"segments": {"rows": 1}},
    )  # fmt: skip


def test_pins(registry: Registry) -> None:
    assert registry.pins.get(CELL) is None
    assert registry.pins.next_number(CELL) == 1
    registry.pins.publish(CELL, pin(1))
    assert registry.pins.get(CELL) == pin(1)
    assert registry.pins.next_number(CELL) == 2
    registry.pins.publish(CELL, pin(2, "r2"))
    assert registry.pins.get(CELL) == pin(2, "r2")
    assert registry.pins.get(replace(CELL, version="v2")) is None


def test_a_number_is_published_once(registry: Registry) -> None:
    registry.pins.publish(CELL, pin(1))
    with pytest.raises(Fenced, match=r"birds@v1\|text was published by another run"):
        registry.pins.publish(CELL, pin(1, "late"))
    assert registry.pins.get(CELL) == pin(1)


def test_exactly_one_of_many_publications_wins(registry: Registry) -> None:
    def publish(i: int) -> bool:
        try:
            registry.pins.publish(CELL, pin(1, f"r{i}"))
        except Fenced:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(publish, range(8)))
    assert won.count(True) == 1
    assert registry.pins.get(CELL) == pin(1, f"r{won.index(True)}")


def test_pins_are_ordered_by_number(registry: Registry) -> None:
    for number in range(1, 12):
        registry.pins.publish(CELL, pin(number))
    found = registry.pins.get(CELL)
    assert found is not None
    assert found.number == 11
    assert registry.pins.next_number(CELL) == 12


def test_what_is_no_pin_is_ignored(registry: Registry) -> None:
    registry.pins.publish(CELL, pin(1))
    for name in (".tmp-abc", "00000007.json.bak", "9.json"):
        registry.store.write(f"registry/pins/{CELL.path}/{name}", b"{")
    assert registry.pins.get(CELL) == pin(1)


def test_tables_of_a_pin() -> None:
    assert pin(1).primary.embedder == "minilm"
    assert pin(1).table(None).embedder == "minilm"
    assert pin(1).table("other").embedder == "other"
    with pytest.raises(
        UserError,
        match=r"birds@v1 text has no embedder 'clip'; it has: other \(space s\), minilm \(space s\)",
    ):
        pin(1).table("clip")


# -- what follows


def test_a_version_is_followed_once(registry: Registry) -> None:
    first = spec_of({"uri": "/data"}, watch={"sources": "register"})
    registry.register(first)
    registry.register(spec_of({"uri": "/elsewhere"}, version="v2"))
    assert registry.next_name(first) == "v3", "v2 is taken by another spec"
    with ThreadPoolExecutor(4) as pool:
        made = set(
            pool.map(
                lambda _: registry.follow(first, ["v2", "v3", "v4"], by="watch").dataset_version, range(4)
            )
        )
    assert made == {"birds@v3"}
    assert registry.datasets() == ["birds@v1", "birds@v2", "birds@v3"]
    following = registry.registration("birds", "v3")
    assert (following.spec.parent, following.by) == ("v1", "watch")
    assert registry.next_name(first) == "v3", "it would be the same version"


def test_the_newest_version_is_the_one_registered_last(registry: Registry) -> None:
    for version in ("v2", "v10", "v1"):
        registry.register(spec_of({"uri": "/data"}, version=version))
    registry.register(spec_of({"uri": "/data"}, name="bees"))
    assert sorted(each.spec.dataset_version for each in registry.newest_versions()) == ["bees@v1", "birds@v1"]


def test_a_clock_that_is_set_back_changes_no_order(registry: Registry) -> None:
    """A version that was registered by a clock ahead of ours is followed by the next one all the same."""
    ahead = Registration(spec_of({"uri": "/data"}), "2126-01-01T00:00:00+00:00")
    record_layout(registry.store)
    registry.store.write(record_name("birds", "v1"), ahead.dump())
    registry.register(spec_of({"uri": "/data"}, version="v2"))
    registry.register(spec_of({"uri": "/data"}, version="v3"))
    registry.register(spec_of({"uri": "/data"}, name="bees"))
    newest = {each.spec.name: each for each in registry.newest_versions()}
    assert newest["birds"].spec.version == "v3"
    assert newest["birds"].at.startswith("2126-01-01T00:00:00.000002")
    assert not newest["bees"].at.startswith("2126")
    assert registry.proposed_parent(spec_of({"uri": "/data"}, version="v4")) == "v3"


def test_an_entry_that_cannot_be_read_is_a_problem_of_its_own(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(spec_of({"uri": "/data"}))
    registry.register(spec_of({"uri": "/data"}, name="bees"))
    read = Store.read

    def read_some(store: Store, name: str) -> bytes:
        if "bees" in name:
            raise PermissionError(13, "Permission denied", name)
        return read(store, name)

    monkeypatch.setattr(Store, "read", read_some)
    problems: list[str] = []
    assert [each.spec.name for each in registry.newest_versions(problems)] == ["birds"]
    assert {cell.dataset for cell in registry.all_cells(problems)} == {"birds"}
    assert list(registry.latest_pins(problems=problems)) == []
    assert len(problems) == 3
    assert all("Permission denied" in problem for problem in problems)


def test_how_sources_are_watched_may_change(registry: Registry) -> None:
    registry.register(spec_of({"uri": "/data"}))
    registry.register(spec_of({"uri": "/data"}, version="v2"))
    before = registry.registration("birds", "v1")
    assert not registry.register(spec_of({"uri": "/data"}, watch={"sources": "propose"}))
    after = registry.registration("birds", "v1")
    assert after.spec.watch.sources == "propose"
    assert (after.at, after.spec.digest) == (before.at, before.spec.digest)
    assert [each.spec.version for each in registry.newest_versions()] == ["v2"]
